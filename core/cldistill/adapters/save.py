"""Write one LoRA as a file that stock diffusers loads at the right scale."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from cldistill.protocols import BaseModel
from cldistill.storage.files import atomic_write_bytes
from cldistill.storage.headers import read_tensors_header


def adapter_metadata(modules: list[str], rank: int, alpha: float) -> str:
    """Return diffusers' ``lora_adapter_metadata``: without it an r = 4, alpha = 16 file reloads at scale 1 instead of 4."""
    config: dict[str, Any] = {
        "r": rank, "lora_alpha": alpha, "target_modules": sorted(modules), "lora_dropout": 0.0, "bias": "none",
        "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    return json.dumps({f"transformer.{key}": value for key, value in config.items()}, sort_keys=True)


def save_adapter(
    path: Path, base: BaseModel, weights: Mapping[str, Tensor], rank: int, alpha: float,
    header: Mapping[str, str] | None = None, dtype: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """Write ``<module>.lora_A.weight`` / ``.lora_B.weight`` tensors under the family's own key names, whole or not at all.

    The same weights and header give the same bytes: targets are cached under a teacher's hash.
    """
    modules = sorted(name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight"))
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": adapter_metadata(modules, rank, alpha), **(header or {})}
    file = bytes(save(base.export_state(tensors), metadata))
    # The library writes the metadata in the order of a hash map, which is new in each process.
    written = read_tensors_header(BytesIO(file))
    atomic_write_bytes(path, written.encoded(written.metadata) + file[written.start :])
