"""An adapter file without its weights, read from its header alone: no torch, no numpy, a few milliseconds for gigabytes.

Only the alphas, scalars of 2 to 8 bytes, are read from the data.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cldistill.adapters.keys import AdapterKey, parse_key, prefix_of, refused_kind, shorten
from cldistill.errors import AdapterFormatError
from cldistill.storage.headers import NoHeaderError, TensorsHeader, read_tensors_header

NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""File names that stand for an adapter folder: diffusers' and peft's."""
DIFFUSERS = "lora_adapter_metadata"
"""diffusers' header entry: JSON of peft's LoraConfig, its keys prefixed ``transformer.``."""
PEFT_CONFIG = "adapter_config.json"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModuleHeader:
    """One adapted module of a file, by shapes."""

    kind: Literal["lora", "lokr"]
    raw: str
    """The module's name as the file writes it."""
    rank: int
    """Inner dimension; of a LoKr without any decomposed factor: the smaller side of ``w2``."""
    out_features: int
    in_features: int
    alpha: float
    scale: float
    """Factor of ``up @ down`` (``alpha / rank``), or of ``kron(w1, w2)``."""
    keys: Mapping[str, str] = field(repr=False)
    """Part (``down``, ``up``, ``lokr_w1``, ...) -> the file's tensor key."""
    inner_rows: int = 1
    """Rows of a LoKr's ``w2``: only between blocks of so many can it be split; 1 for a LoRA."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.out_features, self.in_features


@dataclass(frozen=True)
class AdapterHeader:
    """An adapter file without its weights."""

    path: Path
    format: str
    """Key format in words, e.g. ``transformer.*.lora_A/B``."""
    modules: Mapping[str, ModuleHeader]
    """Module name without prefixes (flattened names stay flattened until fitted to a base) -> shapes."""
    metadata: Mapping[str, str]
    """The file's whole string header."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The different ranks, ascending."""
        return tuple(sorted({module.rank for module in self.modules.values()}))

    @property
    def scales(self) -> tuple[float, ...]:
        """The different scales, ascending."""
        return tuple(sorted({module.scale for module in self.modules.values()}))


def find_file(path: Path) -> Path:
    """Return the adapter file that ``path`` names: a file, or a folder that holds one."""
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if not found:
            raise AdapterFormatError(f"{path}: the folder holds no .safetensors file; name the adapter file itself")
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise AdapterFormatError(f"{path}: the folder holds several files ({names}); name the one you mean")
        return found[0]
    if not path.is_file():
        raise AdapterFormatError(f"{path}: no such adapter file")
    return path


def read_header(path: Path) -> AdapterHeader:
    """Read shapes, alphas and metadata of an adapter file (or of the one in a folder).

    Raises:
        AdapterFormatError: if the file is no safetensors file, holds keys that are no LoRA or LoKr, is a DoRA, or lacks
            one half of a pair.
    """
    file = find_file(Path(path))
    with file.open("rb") as stream:
        header = _read(file, stream)
        groups, keys = _group(file, header.tensors)
        scalars = {
            module: _scalar(file, stream, header.start, header.tensors[parts["alpha"]])
            for module, parts in groups.items()
            if "alpha" in parts
        }
    alphas = Alphas.read(file, header.metadata)
    modules: dict[str, ModuleHeader] = {}
    for raw, parts in groups.items():
        name = shorten(raw)
        if name in modules:
            raise AdapterFormatError(
                f"{file}: module {name!r} appears twice, as {modules[name].raw!r} and as {raw!r}; save it once"
            )
        modules[name] = _module(file, raw, parts, header.tensors, scalars.get(raw), alphas)
    return AdapterHeader(file, describe_format(groups, keys), modules, header.metadata)


def describe_format(modules: Iterable[str], keys: Iterable[AdapterKey]) -> str:
    """Put the key format in words: prefixes, spelling, and whether alphas are tensors."""
    keys = list(keys)
    prefixes = sorted({prefix_of(module) or "(bare) " for module in modules})
    spelled = sorted({key.spelling for key in keys if key.part != "alpha"})
    adapters = sorted({f".{key.adapter}" for key in keys if key.adapter})
    alpha = " + alpha" if any(key.part == "alpha" for key in keys) else ""
    return f"{', '.join(prefixes)}*.{', '.join(spelled)}{', '.join(adapters)}{alpha}"


def _read(file: Path, stream: BinaryIO) -> TensorsHeader:
    """Read the header, and see that the file is as long as it says."""
    problem = f"{file}: not a safetensors file, or a damaged one"
    try:
        header = read_tensors_header(stream)
    except NoHeaderError:
        raise AdapterFormatError(
            f"{problem}; only .safetensors adapters are read (pickled ones can run code)"
        ) from None
    except ValueError as error:
        raise AdapterFormatError(f"{problem} (its header cannot be read: {error}); download it again") from error
    if (missing := header.size - file.stat().st_size) > 0:
        raise AdapterFormatError(f"{problem}: {missing} bytes short; download it again")
    return header


def _group(file: Path, entries: Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], list[AdapterKey]]:
    """Sort the keys by module: raw module name -> part -> key."""
    refused = {kind for kind in map(refused_kind, entries) if kind}
    if refused:
        raise AdapterFormatError(
            f"{file}: this is {' and '.join(sorted(refused))}, which the engine would mount wrongly; "
            "merge it to a plain LoRA with the tool that trained it, or train a LoRA or LoKr without it"
        )
    groups: dict[str, dict[str, str]] = {}
    keys: list[AdapterKey] = []
    for name in entries:
        key = parse_key(name)
        if key is None:
            raise AdapterFormatError(
                f"{file}: key {name!r} is no part of a LoRA or LoKr adapter; is it another model's file?"
            )
        parts = groups.setdefault(key.module, {})
        if key.part in parts:
            raise AdapterFormatError(
                f"{file}: both {parts[key.part]!r} and {name!r} are there; keep one adapter a file"
            )
        parts[key.part] = name
        keys.append(key)
    if not groups:
        raise AdapterFormatError(f"{file}: the file holds no tensors")
    return groups, keys


_UNPACK = {"F16": "<e", "F32": "<f", "F64": "<d", "I64": "<q", "I32": "<i"}


def _scalar(file: Path, stream: BinaryIO, start: int, entry: Mapping[str, Any]) -> float:
    """Read one scalar tensor."""
    begin, end = entry["data_offsets"]
    stream.seek(start + begin)
    data = stream.read(min(end - begin, 8))
    dtype = entry["dtype"]
    if dtype == "BF16" and len(data) == 2:  # bfloat16 is the upper half of a float32
        dtype, data = "F32", b"\0\0" + data
    if dtype not in _UNPACK or struct.calcsize(_UNPACK[dtype]) != len(data):
        raise AdapterFormatError(f"{file}: an alpha is {entry['dtype']} of shape {entry['shape']}, not one number")
    return float(struct.unpack(_UNPACK[dtype], data)[0])


def _module(
    file: Path, raw: str, parts: Mapping[str, str], entries: Mapping[str, Any], scalar: float | None, alphas: Alphas
) -> ModuleHeader:
    """Work out kind, rank, shape and scale of one module."""
    shapes: dict[str, Shape] = {part: tuple(entries[key]["shape"]) for part, key in parts.items() if part != "alpha"}
    if any(len(shape) != 2 for shape in shapes.values()):
        raise AdapterFormatError(
            f"{file}: module {raw!r} has tensors of shapes {shapes}; only linear modules are supported"
        )
    keys = {part: key for part, key in parts.items() if part != "alpha"}
    if {"down", "up"} == set(shapes):
        (rank, wide), (tall, inner) = shapes["down"], shapes["up"]
        if rank != inner or rank < 1:
            raise AdapterFormatError(
                f"{file}: module {raw!r}: down {shapes['down']} and up {shapes['up']} differ in rank"
            )
        alpha = alphas.lora(shorten(raw), rank, scalar)
        return ModuleHeader("lora", raw, rank, tall, wide, alpha, alpha / rank, keys)
    left, right = _factor(shapes, "lokr_w1"), _factor(shapes, "lokr_w2")
    if left is None or right is None or {"down", "up"} & set(shapes):
        raise AdapterFormatError(
            f"{file}: module {raw!r} is incomplete: it has {sorted(parts.values())} and no partner"
        )
    decomposed = right[2] or left[2]
    rank = decomposed or min(right[:2])
    scale = alphas.lokr(shorten(raw), decomposed, scalar)
    return ModuleHeader("lokr", raw, rank, left[0] * right[0], left[1] * right[1], scale * rank, scale, keys, right[0])


def _factor(shapes: Mapping[str, Shape], name: str) -> tuple[int, int, int] | None:
    """Return (rows, columns, rank or 0 if it is one full matrix) of a Kronecker factor."""
    if name in shapes:
        return shapes[name][0], shapes[name][1], 0
    a, b = shapes.get(f"{name}_a"), shapes.get(f"{name}_b")
    if a is None or b is None or a[1] != b[0]:
        return None
    return a[0], b[1], a[1]


@dataclass(frozen=True)
class Alphas:
    """Alpha of each module; a file that says nothing means ``alpha = rank``, as in diffusers and ComfyUI."""

    config: Mapping[str, Any]
    """peft's LoraConfig, as far as the file tells it."""

    @classmethod
    def read(cls, file: Path, metadata: Mapping[str, str]) -> Alphas:
        """Read the header's config or, for peft's own files, the ``adapter_config.json`` beside them.

        Raises:
            AdapterFormatError: if a config cannot be read, or says DoRA.
        """
        beside, config = file.parent / PEFT_CONFIG, {}
        if DIFFUSERS in metadata:
            config = _transformer(_config(file, DIFFUSERS, metadata[DIFFUSERS]))
        elif file.name == "adapter_model.safetensors" and beside.is_file():
            config = _config(beside, "it", beside.read_text())
        if config.get("use_dora"):
            raise AdapterFormatError(
                f"{file}: its config says use_dora; DoRA is not supported: merge it to a plain LoRA"
            )
        return cls(config)

    def lora(self, module: str, rank: int, scalar: float | None) -> float:
        """Return the alpha for which ``alpha / rank`` is the module's scale (rsLoRA's ``alpha / sqrt(rank)`` too)."""
        if scalar is not None:
            return scalar
        alpha = self._alpha(module)
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.config.get("use_rslora") else alpha

    def lokr(self, module: str, decomposed: int, scalar: float | None) -> float:
        """Return a LoKr's scale.

        LyCORIS, ComfyUI and ai-toolkit: ``alpha / rank`` where a factor is decomposed, else 1 whatever alpha says
        (trainers write 1e10 there).  peft always divides by its own ``r``.
        """
        if scalar is not None:
            return scalar / decomposed if decomposed else 1.0
        alpha, rank = self._alpha(module), self._of("rank_pattern", module, self.config.get("r"))
        return 1.0 if alpha is None or not rank else alpha / rank

    def _alpha(self, module: str) -> float | None:
        return self._of("alpha_pattern", module, self.config.get("lora_alpha", self.config.get("alpha")))

    def _of(self, pattern: str, module: str, default: float | None) -> float | None:
        """Find a module in a rank or alpha pattern by peft's rule: the key is a regular expression for the name's end."""
        for key, value in (self.config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return float(value)
        return None if default is None else float(default)


def _config(file: Path, name: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise AdapterFormatError(f"{file}: {name} is not JSON ({error}); save the adapter again") from error
    if not isinstance(config, dict):
        raise AdapterFormatError(f"{file}: {name} is not a JSON object; save the adapter again")
    return config


def _transformer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Strip diffusers' component prefix; the transformer's entries win over a text encoder's."""
    own = {key.removeprefix("transformer."): value for key, value in config.items() if key.startswith("transformer.")}
    return own or {key: value for key, value in config.items() if "." not in key}
