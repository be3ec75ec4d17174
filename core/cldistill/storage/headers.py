"""The header of a safetensors file: read without torch or numpy, in milliseconds for gigabytes; and written anew.

A safetensors file is 8 bytes of length (little endian), so much JSON (tensor -> dtype, shape, byte range), then data whose
offsets count from its own start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from cldistill.storage.untrusted import parse_json

MAX_HEADER_BYTES, MAX_HEADER_PARTS = 32_000_000, 500_000
"""Largest header that is read, and most commas and colons in it: far above those of any model or adapter."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class NoHeaderError(ValueError):
    """The first bytes are no length that a safetensors header has."""


@dataclass(frozen=True)
class TensorsHeader:
    """The header of one file."""

    tensors: Mapping[str, dict[str, Any]]
    """Tensor -> ``dtype``, ``shape``, ``data_offsets``, in the file's order."""
    metadata: Mapping[str, str]
    start: int
    """Byte at which the data starts."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.start + max((entry["data_offsets"][1] for entry in self.tensors.values()), default=0)

    def encoded(self, metadata: Mapping[str, str]) -> bytes:
        """Return all that stands before the data, with other metadata, sorted by key."""
        header = {"__metadata__": dict(sorted(metadata.items())), **self.tensors}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the tensors stay aligned
        return len(text).to_bytes(8, "little") + text


def read_tensors_header(stream: BinaryIO) -> TensorsHeader:
    """Read the header of an open file, and leave the file where its data starts.

    NoHeaderError for another kind of file; ValueError where the header, or a tensor's entry in it, is not whole.
    """
    length = header_length(stream)
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise NoHeaderError("no length of a header")
    text = stream.read(length)
    if text.count(b":") + text.count(b",") > MAX_HEADER_PARTS:
        raise ValueError("it has more entries than any model")
    entries = parse_json(text)
    metadata = entries.pop("__metadata__", {}) if isinstance(entries, dict) and text[:1] == b"{" else None
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise ValueError("it is no map of tensors with texts about them")
    "".join((*entries, *metadata, *metadata.values())).encode()  # half a character, say, is an error
    _must_be_whole(entries)
    return TensorsHeader(entries, metadata, 8 + length)


def header_length(stream: BinaryIO) -> int:
    """Read the bytes of JSON that follow; 0 where the file is too short to say."""
    head = stream.read(8)
    return int.from_bytes(head, "little") if len(head) == 8 else 0


def _must_be_whole(entries: Mapping[str, Any]) -> None:
    """See that every tensor has its type, shape and bytes, and that the bytes follow one another without a gap."""
    for entry in entries.values():
        if missing := {"dtype", "shape", "data_offsets"} - (entry.keys() if isinstance(entry, dict) else set()):
            raise ValueError(f"a tensor has no {' and no '.join(sorted(missing))}")
        shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
        whole = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and isinstance(dtype, str)
        numbers = (*shape, *offsets) if whole else (None,)
        if {*map(type, numbers)} != {int} or dtype not in BITS or not 0 <= min(numbers) <= max(numbers) < 2**63:
            raise ValueError(f"a tensor's entry is {entry!s:.200}")
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: tuple(entry["data_offsets"])):
        begin, stop = entry["data_offsets"]
        if begin != end or (stop - begin) * 8 != prod(entry["shape"]) * BITS[entry["dtype"]]:
            raise ValueError(f"a tensor's bytes are not where they belong: {entry!s:.200}")
        end = stop
