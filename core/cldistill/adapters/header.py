"""An adapter file without its weights, read from its header alone: no torch, no numpy, a few milliseconds for gigabytes.

Only the alphas, scalars of 2 to 8 bytes, are read from the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from cldistill.adapters.alphas import PEFT_PREFIX, Alphas
from cldistill.adapters.keys import AdapterKey, parse_key, prefix_of, refused_kind, shorten
from cldistill.errors import CONTROL, AdapterFormatError
from cldistill.storage.finite import FLOATS, first_not_finite
from cldistill.storage.headers import NoHeaderError, TensorsHeader, read_tensors_header

NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""File names that stand for an adapter folder: diffusers' and peft's."""
TEXT_ENCODERS = ("text_encoder.", "text_encoder_2.", "text_encoders.", "cond_stage_model.", "lora_te")
"""Beginnings of the keys of a text encoder's part, which is left out: this engine adapts the denoiser alone."""
LONGEST_KEY = 1000
POINTER, PAGES = b"version https://git-lfs", (b"<!doctype", b"<html", b"<?xml")
"""First bytes of what is often downloaded in place of a file."""

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
    left_out: int = 0
    """Tensors of a text encoder's part, which is not mounted."""

    def require_finite(self) -> None:
        """Read every byte of the file, once; raises AdapterFormatError for a NaN or an infinity, naming its tensor."""
        if (bad := first_not_finite(self.path)) is not None:
            raise AdapterFormatError(
                f"{self.path}: {bad!r} holds NaN or infinity, with which nothing can be trained or made; it was damaged, or "
                "its own training broke down: take an earlier save of it"
            )

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
    if CONTROL.search(str(path)):
        raise AdapterFormatError(
            f"{path}: its name has characters that cannot be shown or are no UTF-8; rename the file"
        )
    if not path.is_file():
        what = "is a pipe or device, and no file" if path.exists() else "no such adapter file"
        raise AdapterFormatError(f"{path}: {what}")
    return path


def read_header(path: Path) -> AdapterHeader:
    """Read shapes, alphas and metadata of an adapter file (or of the one in a folder).

    Raises:
        AdapterFormatError: if the file is no safetensors file, holds keys that are no LoRA or LoKr, is a DoRA, lacks
            one half of a pair, or holds integers or an alpha that is not finite.
    """
    file = find_file(Path(path))
    try:
        stream = file.open("rb")
    except OSError as error:
        raise AdapterFormatError(f"{file}: cannot be read ({error.strerror})") from error
    with stream:
        header = _read(file, stream)
        own = {name: entry for name, entry in header.tensors.items() if not name.startswith(TEXT_ENCODERS)}
        if header.tensors and not own:
            raise AdapterFormatError(f"{file}: adapts a text encoder alone, and only denoisers are adapted here")
        groups, keys = _group(file, own)
        scalars = {
            module: _scalar(file, stream, header.start, header.tensors[parts["alpha"]])
            for module, parts in groups.items()
            if "alpha" in parts
        }
    alphas = Alphas.read(file, header.metadata, peft=any(PEFT_PREFIX in raw for raw in groups))
    if alphas.config.get("use_dora"):
        raise AdapterFormatError(
            f"{file}: its config says use_dora; DoRA is not mounted: `cldistill convert` makes a LoRA of it"
        )
    modules: dict[str, ModuleHeader] = {}
    for raw, parts in groups.items():
        name = shorten(raw)
        if name in modules:
            raise AdapterFormatError(
                f"{file}: module {name!r} appears twice, as {modules[name].raw!r} and as {raw!r}; save it once"
            )
        modules[name] = _module(file, raw, parts, header.tensors, scalars.get(raw), alphas)
    left_out = len(header.tensors) - len(own)
    return AdapterHeader(file, describe_format(groups, keys), modules, header.metadata, left_out)


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
        stream.seek(0)
        begins = stream.read(100).lstrip().lower()
        if begins.startswith(POINTER):
            problem = f"{file}: is the pointer that Git-LFS keeps in place of the file; fetch it with `git lfs pull`"
        elif begins.startswith(PAGES):
            problem = (
                f"{file}: is a web page that was saved under this name, perhaps one to log in; download the file itself"
            )
        else:
            problem += "; only .safetensors adapters are read (pickled ones can run code)"
        raise AdapterFormatError(problem) from None
    except ValueError as error:
        raise AdapterFormatError(f"{problem} (its header cannot be read: {error}); download it again") from error
    if missing := header.size - file.stat().st_size:
        what = f"{missing} bytes short" if missing > 0 else f"{-missing} bytes too long"
        raise AdapterFormatError(f"{problem}: {what}; download it again")
    return header


def _group(file: Path, entries: Mapping[str, Any]) -> tuple[dict[str, dict[str, str]], list[AdapterKey]]:
    """Sort the keys by module: raw module name -> part -> key."""
    refused = {kind for kind in (refused_kind(name) for name in entries if len(name) <= LONGEST_KEY) if kind}
    if refused:
        raise AdapterFormatError(
            f"{file}: this is {' and '.join(sorted(refused))}, which the engine does not mount; `cldistill convert` makes the "
            "nearest LoRA of it and says how near that is, or merge it to a plain LoRA with the tool that trained it"
        )
    groups: dict[str, dict[str, str]] = {}
    keys: list[AdapterKey] = []
    for name, entry in entries.items():
        key = parse_key(name) if len(name) <= LONGEST_KEY else None
        if key is None:
            raise AdapterFormatError(
                f"{file}: key {name!r:.200} is no part of a LoRA or LoKr adapter; is it another model's file?"
            )
        if key.part != "alpha" and entry["dtype"] not in FLOATS:
            raise AdapterFormatError(
                f"{file}: {name!r} is of type {entry['dtype']}; weights that are quantised or integers are not mounted: "
                "save the adapter in bf16, fp16 or fp32"
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
    value = float(struct.unpack(_UNPACK[dtype], data)[0])
    if not math.isfinite(value):
        raise AdapterFormatError(f"{file}: an alpha is {value}; take an earlier save of the adapter")
    return value


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
