"""A whole file converted, and what came of it."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from cldistill.adapters.alphas import PEFT_PREFIX
from cldistill.errors import AdapterFormatError
from cldistill.storage.files import atomic_file, sha256_file
from cldistill_plugins.converting.factors import Nearest, nearest
from cldistill_plugins.converting.read import AdapterReader, BaseWeights, Read

EXACT = 1e-5
"""Relative error up to which a module counts as exact: fp32's rounding."""


@dataclass(frozen=True)
class Converted:
    """A LoRA that was made, and what it lacks; `lines` tells people."""

    output: Path
    rank: int
    kinds: Counter[str]
    """Kind -> modules."""
    error: float
    """Norm of what is lacking in all modules together, as a share of the norm of all differences."""
    worst: tuple[str, float]
    """The module with the largest relative error, and that error."""
    exact: int
    """Modules that are exact."""
    biases: tuple[str, ...]
    left_out: int

    def lines(self) -> list[str]:
        """Return what a person should know, nothing that was lost left unsaid."""
        total = sum(self.kinds.values())
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        lines = [
            f"{self.output}: {total} modules of rank {self.rank} at most, from {found}.",
            f"Relative error {self.error:.2%} (Frobenius norm over all modules); {self.exact} of {total} modules are exact.",
        ]
        if self.exact < total:
            lines.append(
                f"The worst module is {self.worst[0]}, {self.worst[1]:.2%}; a larger --rank makes all smaller."
            )
        if self.biases:
            lines.append(
                f"Left out: {len(self.biases)} differences of biases, which no LoRA can hold, the first: {self.biases[0]}"
            )
        if self.left_out:
            lines.append(f"Left out: the text encoder's part, {self.left_out} tensors.")
        return lines


def _nearest(module: Read, rank: int, path: Path) -> Nearest:
    try:
        found = nearest(module.factors, rank)
        if math.isfinite(found.size) and math.isfinite(found.error):
            return found
    except RuntimeError:  # of numbers that are none any more
        pass
    raise AdapterFormatError(f"{path}: the numbers of {module.name!r} are so large that their product has none")


def convert_file(path: Path, output: Path, rank: int, base: BaseWeights | None = None) -> Converted:
    """Write the nearest LoRA of ``rank`` at most, in fp32 at scale 1, under the file's own names of modules.

    Raises:
        AdapterFormatError: see `AdapterReader`.
    """
    reader = AdapterReader(path, base)
    tensors: dict[str, Tensor] = {}
    kinds: Counter[str] = Counter()
    errors: dict[str, float] = {}
    lost = size = 0.0
    for module in reader.modules():
        found = _nearest(module, rank, path)
        name = module.name.rpartition(PEFT_PREFIX)[2]  # no file of peft's any more, whose config beside it would count
        if f"{name}.alpha" in tensors:
            raise AdapterFormatError(f"{path}: several modules of the file are {name!r}; save each once")
        tensors[f"{name}.lora_down.weight"] = found.down.clone().contiguous()
        tensors[f"{name}.lora_up.weight"] = found.up.clone().contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(float(len(found.down)))
        kinds[module.kind] += 1
        errors[module.name] = found.error / found.size if found.size else 0.0
        lost, size = lost + found.error**2, size + found.size**2
    error = (lost / size) ** 0.5 if size else 0.0
    made = {
        "from_sha256": sha256_file(reader.path),
        "rank": rank,
        "relative_error": error,
        "biases_left_out": reader.biases,
    }
    with atomic_file(output) as partial:
        save_file(tensors, partial, {"format": "pt", "cldistill.converted": json.dumps(made)})
    return Converted(
        output, rank, kinds, error, max(errors.items(), key=lambda pair: pair[1]),
        sum(value <= EXACT for value in errors.values()), tuple(reader.biases), reader.left_out,
    )  # fmt: skip
