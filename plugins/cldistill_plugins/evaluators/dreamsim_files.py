"""DreamSim's checkpoints: which files a variant consists of, whether they are there, and how they are downloaded.  No torch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from cldistill.errors import NotMeasured

DINO = Path("checkpoints", "dino_vitbase16_pretrain.pth")
"""Path of DINO's ViT-B/16, as ``torch.hub`` keeps it when the package calls it."""
DINO_ADDRESS = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
FILES = {
    "ensemble": (DINO, Path("clip_vitb16_pretrain.pth.tar"), Path("open_clip_vitb16_pretrain.pth.tar")),
    "dino_vitb16": (DINO,),
    "clip_vitb32": (Path("clip_vitb32_pretrain.pth.tar"),),
    "open_clip_vitb32": (Path("open_clip_vitb32_pretrain.pth.tar"),),
}
"""Variant -> weights of the networks under it; its LoRA lies beside them."""


def lora_folder(variant: str) -> Path:
    """Return the folder of a variant's LoRA within the checkpoints'."""
    return Path("ensemble_lora" if variant == "ensemble" else f"{variant}_single_lora")


def find_checkpoints(folder: Path, variant: str, *, download: bool) -> None:
    """Make sure that all files of a variant are in ``folder``.

    Raises:
        NotMeasured: some are missing, and may not or cannot be downloaded.
    """
    missing = _missing(folder, variant)
    if missing and download:
        try:
            _download(folder, variant, missing)
        except Exception as error:  # whatever a download may end with
            raise NotMeasured(f"DreamSim's {variant} could not be downloaded to {folder} ({error})") from error
        missing = _missing(folder, variant)
    if missing:
        raise NotMeasured(
            f"{folder} lacks {', '.join(map(str, missing))} of DreamSim's {variant}; give folder:, or allow download: true"
        )


def _missing(folder: Path, variant: str) -> list[Path]:
    lora = lora_folder(variant)
    wanted = [*FILES[variant], lora / "adapter_config.json"]
    missing = [path for path in wanted if not (folder / path).is_file()]
    weights = [lora / name for name in ("adapter_model.safetensors", "adapter_model.bin")]
    return missing if any((folder / path).is_file() for path in weights) else [*missing, weights[0]]


def _download(folder: Path, variant: str, missing: Sequence[Path]) -> None:
    from dreamsim.model import download_weights

    folder.mkdir(parents=True, exist_ok=True)
    if any(path != DINO for path in missing):
        with contextlib.redirect_stdout(io.StringIO()):
            download_weights(str(folder), variant)
    if DINO in missing:
        import torch

        (folder / DINO).parent.mkdir(exist_ok=True)
        torch.hub.download_url_to_file(DINO_ADDRESS, str(folder / DINO), progress=False)
