"""``clip``: CLIP similarity by open_clip (Radford et al., arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cldistill.component import BuildContext, ModelRef, Needs
from cldistill.protocols import Metric
from cldistill.records import Column

from .compared import Compared
from .models import ModelSettings, find_model, fingerprint, need, reason, see_model, unusable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from .similarity import Against

NAMES: Mapping[Against, str] = {"reference": "clip", "source": "clip_source", "text": "clip_text"}
COLUMNS = {
    "clip": Column("CLIP to the reference", "higher"),
    "clip_source": Column("CLIP to the source", "higher"),
    "clip_text": Column("CLIP to the instruction", "higher"),
}
VERSION = "1"
"""Of what this file computes; cached values go by it."""


class ClipSettings(ModelSettings):
    """Options of ``clip``."""

    model: ModelRef = Field(
        "timm/vit_base_patch32_clip_224.openai",
        description="folder or hub repository with open_clip_config.json and weights (OpenAI's ViT-B/32)",
    )
    against: tuple[Literal["reference", "source", "text"], ...] = Field(
        ("reference",), min_length=1, description="what an output is compared with"
    )
    references: int = Field(1, ge=1, description="after-pictures of the effect's pairs; their mean counts")
    batch_size: int = Field(16, ge=1, description="pictures at once")


def describe_clip(settings: ClipSettings) -> Needs:
    """Needs open_clip and weights; an evaluation goes on without them."""
    return Needs(lacks=reason(lambda: see_model("open_clip", settings)))


def build_clip(settings: ClipSettings, context: BuildContext) -> Metric:
    """Find the weights; they are loaded when there is something to measure.  Raises `NotMeasured`."""
    need("open_clip", "cldistill[eval]")
    folder = find_model(settings.model, download=settings.download, revision=settings.revision)
    names: dict[Against, str] = {against: NAMES[against] for against in settings.against}
    load = partial(load_clip, folder, context.device)
    return Compared(COLUMNS, names, f"{VERSION} {fingerprint(folder)}", load, settings.references, settings.batch_size)


@dataclass(frozen=True)
class ClipFeatures:
    """Implements `similarity.Features`."""

    model: Any
    preprocess: Any
    tokenize: Any
    device: str

    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """Return ``[N, D]`` of the picture tower."""
        import torch

        from .similarity import unit

        batch = torch.stack([self.preprocess(picture) for picture in pictures])
        return unit(self.model.encode_image(batch.to(self.device)))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return ``[N, D]`` of the text tower; a text is cut at the tower's context length."""
        from .similarity import unit

        return unit(self.model.encode_text(self.tokenize(list(texts)).to(self.device)))


def load_clip(folder: Path, device: str) -> ClipFeatures:
    """Load a model, its preprocessing and its tokenizer from a folder in open_clip's layout.

    Raises:
        NotMeasured: with what is wrong.  (open_clip only warns of a folder without weights, and leaves them random.)
    """
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    name = f"local-dir:{folder}"
    try:
        with torch.random.fork_rng(devices=[]):  # the weights are drawn before they are read
            model = open_clip.create_model(name, require_pretrained=True, weights_only=True)
        preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:  # whatever open_clip makes of files that are not its own
        raise unusable(folder, error) from error
    return ClipFeatures(model.to(device).eval(), preprocess, tokenize, device)
