"""Pictures on disk, by content: made once, kept lossless, read when somebody looks."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from cldistill.data.items import open_picture
from cldistill.storage.files import (
    atomic_write_bytes,
    atomic_write_text,
    file_digest,
    partial_path,
    sha256_bytes,
)

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIX = ".webp"


class PictureStore:
    """Pictures by key (`cldistill.sampling.image_generator.ImageGenerator.key`), in the cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = 0
        """Pictures that had to be made, for the log and the tests."""

    def path(self, key: str) -> Path:
        """Return where the picture of a key lies."""
        return self.root / key[:2] / f"{key}{SUFFIX}"

    def has(self, key: str) -> bool:
        """Return whether it is there and fits its digest, which lies beside it; another process may just be writing them."""
        path = self.path(key)
        try:
            return file_digest(path) == _digest_file(path).read_text(encoding="ascii")
        except (OSError, ValueError):
            return False

    def write(self, key: str, picture: Image) -> None:
        """Keep a picture."""
        path, data = self.path(key), lossless(picture)
        atomic_write_bytes(path, data)
        atomic_write_text(_digest_file(path), sha256_bytes(data))
        self.written += 1


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def lossless(picture: Image) -> bytes:
    """Return a picture as lossless WebP; the fastest method costs 6 ms at 128 x 128 and a fourth more bytes than the best."""
    data = io.BytesIO()
    picture.save(data, "WEBP", lossless=True, method=0)
    return data.getvalue()


def place(file: Path, target: Path) -> None:
    """Let a kept picture also lie at ``target``: as a hard link where that is possible, else as a copy."""
    if target.exists() and (target.samefile(file) or target.read_bytes() == file.read_bytes()):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = partial_path(target)
    try:
        os.link(file, aside)
    except OSError:
        shutil.copyfile(file, aside)
    aside.replace(target)


class Pictures(Sequence["Image"]):
    """Pictures that are read when they are indexed; none is kept in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Hashes of the files."""
        return tuple(file_digest(path) for path in self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Pictures: ...
    def __getitem__(self, index: int | slice) -> Image | Pictures:
        return Pictures(self.paths[index]) if isinstance(index, slice) else open_picture(self.paths[index])
