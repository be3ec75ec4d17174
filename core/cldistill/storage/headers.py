"""The header of a safetensors file: read without torch or numpy, in milliseconds for gigabytes; and written anew.

A safetensors file is 8 bytes of length (little endian), so much JSON (tensor -> dtype, shape, byte range), then data whose
offsets count from its own start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 100_000_000


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

    Raises:
        NoHeaderError: the file is another kind of file.
        ValueError: the header cannot be read, or a tensor's entry is not whole.
    """
    length = header_length(stream)
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise NoHeaderError("no length of a header")
    try:
        entries = json.loads(stream.read(length))
        metadata = entries.pop("__metadata__", {})
        for entry in entries.values():
            _must_be_whole(entry)
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error
    return TensorsHeader(entries, metadata, 8 + length)


def header_length(stream: BinaryIO) -> int:
    """Read the bytes of JSON that follow; 0 where the file is too short to say."""
    head = stream.read(8)
    return int.from_bytes(head, "little") if len(head) == 8 else 0


def _must_be_whole(entry: Mapping[str, Any]) -> None:
    missing = {"dtype", "shape", "data_offsets"} - entry.keys()
    if missing:
        raise ValueError(f"a tensor has no {' and no '.join(sorted(missing))}")
    begin, end = entry["data_offsets"]
    if not (isinstance(entry["dtype"], str) and all(type(size) is int for size in (*entry["shape"], begin, end))):
        raise ValueError(f"a tensor's entry is {entry}")
