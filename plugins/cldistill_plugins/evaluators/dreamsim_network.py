"""DreamSim's network, made from its checkpoints offline.

The package's own loader fetches DINO's *code* through ``torch.hub`` and unpickles its weights.  Here the package's copy of
that architecture is filled by ``weights_only=True`` instead; everything else is the package's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .dreamsim_files import DINO, lora_folder
from .models import unusable
from .similarity import unit

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class DreamSimFeatures:
    """Implements `similarity.Features`: DreamSim's distance is ``1 - cosine`` of these."""

    model: Any
    size: int
    device: str

    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """Return ``[N, D]``: each picture squeezed to a square, as the package does it."""
        from torchvision.transforms import functional as F

        batch = [F.resize(picture.convert("RGB"), [self.size] * 2, F.InterpolationMode.BICUBIC) for picture in pictures]
        return unit(self.model.embed(torch.stack([F.to_tensor(picture) for picture in batch]).to(self.device)))

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Raise TypeError."""
        raise TypeError("DreamSim reads no text")


def load_dreamsim(folder: Path, variant: str, device: str) -> DreamSimFeatures:
    """Load a variant from a folder that `find_checkpoints` found complete.

    Raises:
        NotMeasured: a file is not what its name says.
    """
    from dreamsim import PerceptualModel
    from dreamsim.config import dreamsim_args
    from peft import PeftModel

    try:
        lora = folder / lora_folder(variant)
        config = dreamsim_args["model_config"][variant]
        with _local_dino(folder), torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            network = PerceptualModel(**config, device=device, load_dir=str(folder), normalize_embeds=True)
            model = PeftModel.from_pretrained(network, str(lora)).to(device).eval().requires_grad_(False)
        _check_lora(model, lora)
    except Exception as error:  # whatever the packages make of files that are not theirs
        raise unusable(folder, error) from error
    return DreamSimFeatures(model, dreamsim_args["img_size"], device)


def _check_lora(model: nn.Module, folder: Path) -> None:
    """Refuse a LoRA of another network, whose tensors peft leaves out with a warning."""
    from peft import get_peft_model_state_dict
    from peft.utils import load_peft_weights

    saved, mounted = load_peft_weights(str(folder), device="cpu").keys(), get_peft_model_state_dict(model).keys()
    if saved != mounted:
        odd = sorted(saved ^ mounted)
        raise ValueError(f"{len(odd)} tensors of its LoRA do not fit, such as {odd[0]}")


@contextmanager
def _local_dino(folder: Path) -> Iterator[None]:
    """Have the package take DINO from ``folder`` instead of from ``torch.hub``, as long as the block lasts."""
    from dreamsim.feature_extraction.extractor import ViTExtractor

    original = ViTExtractor.create_model

    def create(model_type: str, load_dir: str) -> nn.Module:
        made: nn.Module = _dino(folder) if model_type == "dino_vitb16" else original(model_type, load_dir)
        return made

    ViTExtractor.create_model = staticmethod(create)
    try:
        yield
    finally:
        ViTExtractor.create_model = staticmethod(original)


def _dino(folder: Path) -> nn.Module:
    """DINO's ViT-B/16: the package's copy of its code, every weight from the file."""
    from dreamsim.feature_extraction import vision_transformer

    network: nn.Module = vision_transformer.vit_base(patch_size=16)
    network.load_state_dict(torch.load(folder / DINO, map_location="cpu", weights_only=True), strict=True)
    return network
