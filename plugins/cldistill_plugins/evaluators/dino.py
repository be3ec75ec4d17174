"""``dino``: similarity of DINO features (Caron et al., arXiv 2104.14294; DINOv2: Oquab et al., arXiv 2304.07193)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cldistill.component import BuildContext, ModelRef, Needs
from cldistill.errors import NotMeasured
from cldistill.protocols import Metric
from cldistill.records import Column

from .compared import Compared
from .models import ModelSettings, find_model, fingerprint, need, reason, see_model, unusable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from .similarity import Against

NAMES: Mapping[Against, str] = {"source": "dino", "reference": "dino_reference"}
COLUMNS = {
    "dino": Column("DINO to the source", "higher"),
    "dino_reference": Column("DINO to the reference", "higher"),
}
FAMILIES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
"""transformers' model types in which DINO weights are published; the first token is the picture's."""
VERSION = "1"
"""Of what this file computes; cached values go by it."""


class DinoSettings(ModelSettings):
    """Options of ``dino``."""

    model: ModelRef = Field(
        "facebook/dinov2-base",
        description="folder or hub repository in transformers' layout, e.g. facebook/dino-vitb16",
    )
    against: tuple[Literal["source", "reference"], ...] = Field(
        ("source",),
        min_length=1,
        description="what an output is compared with: its source says whether the subject is kept",
    )
    references: int = Field(1, ge=1, description="after-pictures of the effect's pairs; their mean counts")
    batch_size: int = Field(16, ge=1, description="pictures at once")


def describe_dino(settings: DinoSettings) -> Needs:
    """Needs weights; an evaluation goes on without them."""
    return Needs(lacks=reason(lambda: see_model("torchvision", settings)))


def build_dino(settings: DinoSettings, context: BuildContext) -> Metric:
    """Find the weights; they are loaded when there is something to measure.  Raises `NotMeasured`."""
    need("torchvision", "cldistill[eval]")  # without it transformers resizes in another way, and figures would differ
    folder = find_model(settings.model, download=settings.download, revision=settings.revision)
    names: dict[Against, str] = {against: NAMES[against] for against in settings.against}
    load = partial(load_dino, folder, context.device)
    return Compared(COLUMNS, names, f"{VERSION} {fingerprint(folder)}", load, settings.references, settings.batch_size)


@dataclass(frozen=True)
class DinoFeatures:
    """Implements `similarity.Features`; DINO reads no text."""

    model: Any
    processor: Any
    device: str

    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """Return ``[N, D]``: the first token of the last layer, after its norm."""
        from .similarity import unit

        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.device)
        return unit(self.model(**inputs).last_hidden_state[:, 0])

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Raise TypeError."""
        raise TypeError("DINO reads no text")


def load_dino(folder: Path, device: str) -> DinoFeatures:
    """Load a model and its image processor from a folder in transformers' layout.

    Raises:
        NotMeasured: it is none, or of another family.
    """
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    try:
        family = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if family not in FAMILIES:
            raise NotMeasured(f"the model in {folder} is a {family}, not DINO ({', '.join(FAMILIES)})")
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        with torch.random.fork_rng(devices=[]):  # what the file lacks is drawn
            model, report = AutoModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        # DINO's own files lack the pooler of transformers' ViT, which is not used here; anything else must be there.
        missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
        if missing:
            raise NotMeasured(f"the weights in {folder} lack {len(missing)} tensors, such as {missing[0]}")
    except NotMeasured:
        raise
    except Exception as error:  # whatever transformers makes of files that are not its own
        raise unusable(folder, error) from error
    return DinoFeatures(model.to(device).eval(), processor, device)
