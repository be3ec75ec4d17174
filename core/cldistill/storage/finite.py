"""A look for NaN and infinity in a safetensors file: every byte is read, without torch, once for a file.

A float is NaN or infinite where all bits of its exponent are set (in F8_E4M3 all bits but the sign).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from cldistill.storage.files import noted
from cldistill.storage.headers import TensorsHeader, read_tensors_header

CHUNK = 8 * 1024**2  # bytes read at once
FLOATS = {
    "F64": (8, 0x7F, 0xF0), "F32": (4, 0x7F, 0x80), "BF16": (2, 0x7F, 0x80), "F16": (2, 0x7C, 0),
    "F8_E5M2": (1, 0x7C, 0), "F8_E4M3": (1, 0x7F, 0),
}  # fmt: skip
"""Type -> bytes of a number, and which bits of its highest byte and of the one below are all set in what is not finite."""


def first_not_finite(path: Path) -> str | None:
    """Return the first tensor with a NaN or an infinity; None where all are finite, or of a type that has neither."""
    return noted("finite", path, _first) or None


def _first(path: Path) -> str:
    with path.open("rb") as stream:
        header = read_tensors_header(stream)
        for name, entry in header.tensors.items():
            if any(_is_bad(entry["dtype"], chunk) for chunk in _chunks(stream, header, entry)):
                return name
    return ""


def _chunks(stream: BinaryIO, header: TensorsHeader, entry: Mapping[str, Any]) -> Iterator[bytes]:
    begin, end = entry["data_offsets"] if entry["dtype"] in FLOATS else (0, 0)
    stream.seek(header.start + begin)
    for left in range(end - begin, 0, -CHUNK):
        yield stream.read(min(CHUNK, left))


def _is_bad(dtype: str, chunk: bytes) -> bool:
    width, highest, below = FLOATS[dtype]
    marked = chunk[width - 1 :: width].translate(_marks(highest))
    if b"\1" not in marked:
        return False
    also = chunk[max(0, width - 2) :: width].translate(_marks(below))
    return int.from_bytes(marked, "big") & int.from_bytes(also, "big") != 0


@lru_cache
def _marks(bits: int) -> bytes:
    """Return a table for `bytes.translate`: 1 for the bytes in which all of ``bits`` are set, else 0."""
    return bytes(byte & bits == bits for byte in range(256))
