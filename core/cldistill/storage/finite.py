"""A look for NaN and infinity in a safetensors file: every byte is read, without torch, once for a file.

A float is NaN or infinite where all bits of its exponent are set (in F8_E4M3 all bits but the sign).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from cldistill.storage.files import default_cache, sha256_bytes
from cldistill.storage.headers import TensorsHeader, read_tensors_header

CHUNK, NOTED = 8 * 1024**2, 64 * 1024**2  # bytes read at once; and of a file that is worth a note
FLOATS = {
    "F64": ("<u8", 0x7FF << 52), "F32": ("<u4", 0xFF << 23), "BF16": ("<u2", 0xFF << 7), "F16": ("<u2", 0x1F << 10),
    "F8_E5M2": ("u1", 0x7C), "F8_E4M3": ("u1", 0x7F),
}  # fmt: skip
"""Type -> its numbers as integers, and the bits that are all set in one that is not finite."""


def first_not_finite(path: Path) -> str | None:
    """Return the first tensor with a NaN or an infinity; None where all are finite, or of a type that has neither.

    A large file that was found good is noted in the cache, by its place, size and time, and not read again.
    """
    status = path.stat()
    return _first(path.absolute(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _first(path: Path, size: int, time: int) -> str | None:
    note = default_cache() / "finite" / sha256_bytes(f"{path!s}\0{size}\0{time}".encode(errors="surrogateescape"))
    if size > NOTED and note.exists():
        return None
    with path.open("rb") as stream:
        header = read_tensors_header(stream)
        for name, entry in header.tensors.items():
            if any(_is_bad(entry["dtype"], chunk) for chunk in _chunks(stream, header, entry)):
                return name
    with suppress(OSError):  # without a note it is read again
        if size > NOTED:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
    return None


def _chunks(stream: BinaryIO, header: TensorsHeader, entry: Mapping[str, Any]) -> Iterator[bytes]:
    begin, end = entry["data_offsets"] if entry["dtype"] in FLOATS else (0, 0)
    stream.seek(header.start + begin)
    for left in range(end - begin, 0, -CHUNK):
        yield stream.read(min(CHUNK, left))


def _is_bad(dtype: str, chunk: bytes) -> bool:
    import numpy as np  # only where weights are read: the commands start without it

    kind, bits = FLOATS[dtype]
    values = np.frombuffer(chunk, kind)
    return bool(((values & values.dtype.type(bits)) == bits).any())
