"""An adapter file of any of the kinds that are not mounted, as factors of each module's weight difference."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cldistill.adapters.alphas import PEFT_PREFIX, Alphas
from cldistill.adapters.header import TEXT_ENCODERS, find_file
from cldistill.adapters.keys import ModuleNames, parse_key, shorten
from cldistill.errors import AdapterFormatError
from cldistill.storage.finite import first_not_finite
from cldistill.storage.headers import read_tensors_header
from cldistill_plugins.converting.factors import Factors, of_dora, of_loha, of_matrix

_OTHER = re.compile(
    r"(?P<module>.+)\.(?P<part>hada_w[12]_[ab]|dora_scale|(?:lora_)?magnitude(?:_vector)?|diff_b|diff|(?:lora_[AB]\.)?bias)"
    r"(?:\.(?!weight$)[\w-]+)?(?:\.weight)?"
)
"""Keys that no plain LoRA or LoKr has; an adapter's own name (``default``) may stand behind the part."""
MAGNITUDES = ("dora_scale", "magnitude", "magnitude_vector", "lora_magnitude", "lora_magnitude_vector")
BIASES = ("diff_b", "bias", "lora_A.bias", "lora_B.bias")
MOST_VALUES = 2**29
"""Values of a module's difference that are computed; the largest of today's models has 340 million."""
FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"), "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "add_qkv_proj": ("add_q_proj", "add_k_proj", "add_v_proj"), "to_kv": ("to_k", "to_v"),
}  # fmt: skip
"""Last part of a fused projection's name -> those that it stands for, in the order of its rows."""


@dataclass(frozen=True)
class Read:
    """One module's difference."""

    name: str
    """As the file writes it; of a fused projection, that of its part."""
    kind: str
    """``LoRA``, ``LoKr``, ``LoHa``, ``DoRA`` or ``difference``."""
    factors: Factors


class BaseWeights:
    """The weights of a base's denoiser, read one by one from the files of its folder."""

    def __init__(self, folder: Path) -> None:
        """Read the headers in ``folder/transformer``, or in the folder itself.

        Raises:
            AdapterFormatError: there are no safetensors files.
        """
        inner = folder / "transformer"
        self._file_of: dict[str, Path] = {}
        found = (inner if inner.is_dir() else folder).glob("*.safetensors")
        for path in sorted(path for path in found if path.is_file()):  # a pipe would be waited for
            try:
                with path.open("rb") as stream:
                    self._file_of |= dict.fromkeys(read_tensors_header(stream).tensors, path)
            except (OSError, ValueError) as error:
                raise AdapterFormatError(f"--base {path}: is no safetensors file that can be read ({error})") from error
        if not self._file_of:
            raise AdapterFormatError(f"--base {folder}: holds no safetensors files; name a pipeline's folder")
        self._names = ModuleNames(key.removesuffix(".weight") for key in self._file_of if key.endswith(".weight"))

    def of(self, module: str) -> Tensor:
        """Return the weight ``[out, in]`` of a module as a file writes it; raises AdapterFormatError if it has none such."""
        found = self._names.resolve(module)
        if found is None:
            raise AdapterFormatError(f"the base has no module {module!r}; is the file of another model?")
        with safe_open(self._file_of[f"{found}.weight"], framework="pt") as file:
            weight: Tensor = file.get_tensor(f"{found}.weight").float()
        return weight


class AdapterReader:
    """The modules of one file, their tensors read when they are asked for."""

    def __init__(self, path: Path, base: BaseWeights | None = None) -> None:
        """Sort the file's keys by module.

        Raises:
            AdapterFormatError: the file cannot be read, holds NaN or infinity, or a key that belongs to no known kind.
        """
        self.path, self.base = find_file(path), base
        try:
            with self.path.open("rb") as stream:
                header = read_tensors_header(stream)
            bad = first_not_finite(self.path)
        except (OSError, ValueError) as error:
            raise AdapterFormatError(f"{path}: is no safetensors file that can be read ({error})") from error
        if bad is not None:
            raise AdapterFormatError(f"{path}: {bad!r} holds NaN or infinity; take an earlier save of it")
        own = [key for key in header.tensors if not key.startswith(TEXT_ENCODERS)]
        self.left_out = len(header.tensors) - len(own)
        """Tensors of a text encoder's part."""
        self.biases: list[str] = []
        """Keys of differences of biases, which no LoRA can hold."""
        self.groups: dict[str, dict[str, str]] = {}
        for key in own:
            module, part = _taken_apart(self.path, key)
            if part in BIASES:
                self.biases.append(key)
            else:
                self.groups.setdefault(module, {})[part] = key
        if not self.groups:
            raise AdapterFormatError(f"{path}: holds no difference of a linear module")
        self._alphas = Alphas.read(self.path, header.metadata, peft=any(PEFT_PREFIX in name for name in self.groups))

    def modules(self) -> Iterator[Read]:
        """Yield each module's difference, fused projections apart; raises AdapterFormatError for one that is not whole."""
        with safe_open(self.path, framework="pt") as file:
            for module, keys in self.groups.items():
                tensors = {part: file.get_tensor(key) for part, key in keys.items()}
                yield from _apart(module, *self._fitting(module, tensors))

    def _fitting(self, module: str, tensors: Mapping[str, Tensor]) -> tuple[str, Factors]:
        """Return kind and factors of a module whose parts fit one another, and whose difference can be held."""
        sizes = ", ".join(f"{part} {' x '.join(map(str, value.shape)) or '1'}" for part, value in tensors.items())
        if not all(value.is_floating_point() for part, value in tensors.items() if part != "alpha"):
            raise AdapterFormatError(f"{self.path}: module {module!r} holds integers, which are no weights")
        if _values(tensors) > MOST_VALUES:
            raise AdapterFormatError(
                f"{self.path}: module {module!r} ({sizes}) would be larger than that of any model; take another file"
            )
        try:
            kind, factors = self._factors(module, {part: value.float() for part, value in tensors.items()})
            if factors.up.shape[1] == factors.down.shape[0] > 0:
                return kind, factors
        except AdapterFormatError:
            raise
        except (ArithmeticError, RuntimeError, ValueError):  # as torch says that two shapes do not go together
            pass
        against = ", or its weight in the base" if self.base is not None else ""
        raise AdapterFormatError(f"{self.path}: the parts of {module!r} do not fit one another{against}: {sizes}")

    def _factors(self, module: str, tensors: Mapping[str, Tensor]) -> tuple[str, Factors]:
        parts = set(tensors) - {"alpha"}
        scalar = float(tensors["alpha"]) if "alpha" in tensors else None
        if any(tensors[part].dim() != 2 for part in parts - set(MAGNITUDES)):
            raise AdapterFormatError(f"{self.path}: module {module!r} is no linear module; only those are converted")
        if parts == {"diff"}:
            return "difference", of_matrix(tensors["diff"])
        if parts == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}:
            rank = tensors["hada_w1_b"].shape[0]
            scale = self._alphas.lora(shorten(module), rank, scalar) / rank
            return "LoHa", of_loha(scale, *(tensors[f"hada_{part}"] for part in ("w1_a", "w1_b", "w2_a", "w2_b")))
        if {"down", "up"} <= parts and len(magnitudes := parts - {"down", "up"}) <= 1 and magnitudes <= set(MAGNITUDES):
            rank = tensors["down"].shape[0]
            scale = self._alphas.lora(shorten(module), rank, scalar) / rank
            plain = Factors(scale * tensors["up"], tensors["down"])
            if not magnitudes:
                return "LoRA", plain
            if self.base is None:
                raise AdapterFormatError(
                    f"{self.path}: is a DoRA, whose difference depends on the base's weights: give --base FOLDER"
                )
            return "DoRA", of_dora(plain, tensors[magnitudes.pop()], self.base.of(module))
        if parts and all(part.startswith("lokr_w") for part in parts):
            return "LoKr", self._lokr(module, tensors, scalar)
        raise AdapterFormatError(f"{self.path}: module {module!r} is not whole, or mixes kinds: it has {sorted(parts)}")

    def _lokr(self, module: str, tensors: Mapping[str, Tensor], scalar: float | None) -> Factors:
        def factor(name: str) -> tuple[Tensor, int]:
            if name in tensors:
                return tensors[name], 0
            return tensors[f"{name}_a"] @ tensors[f"{name}_b"], tensors[f"{name}_b"].shape[0]

        try:
            (w1, left), (w2, right) = factor("lokr_w1"), factor("lokr_w2")
        except KeyError as error:
            raise AdapterFormatError(f"{self.path}: module {module!r} has no {error}; it is not whole") from error
        return of_matrix(self._alphas.lokr(shorten(module), right or left, scalar) * torch.kron(w1, w2))


def _values(tensors: Mapping[str, Tensor]) -> int:
    """Return how many values the larger factor of a LoHa, or the difference of a LoKr, would have."""

    def side(name: str, place: int) -> int:
        part = tensors.get(name, tensors.get(f"{name}_{'ab'[place]}"))
        return int(part.shape[place]) if part is not None and part.dim() == 2 else 1

    loha = max(side("hada_w1", 0), side("hada_w1", 1)) * side("hada_w1_b", 0) * side("hada_w2_b", 0)
    return max(loha, math.prod(side(name, place) for name in ("lokr_w1", "lokr_w2") for place in (0, 1)))


def _taken_apart(path: Path, key: str) -> tuple[str, str]:
    if (plain := parse_key(key)) is not None:
        return plain.module, plain.part
    other = _OTHER.fullmatch(key)
    if other is None:
        raise AdapterFormatError(f"{path}: key {key!r:.200} belongs to no kind of adapter that can be converted")
    return other["module"], other["part"]


def _apart(module: str, kind: str, factors: Factors) -> Iterator[Read]:
    """Yield a fused projection's parts, or the module itself."""
    for fused, names in FUSED.items():
        if module.endswith((f".{fused}", f"_{fused}")):
            if factors.up.shape[0] % len(names):
                raise AdapterFormatError(
                    f"module {module!r} has {factors.up.shape[0]} rows, not {len(names)} equal parts"
                )
            rows = factors.up.shape[0] // len(names)
            for index, name in enumerate(names):
                yield Read(module.removesuffix(fused) + name, kind, factors.rows(index * rows, (index + 1) * rows))
            return
    yield Read(module, kind, factors)
