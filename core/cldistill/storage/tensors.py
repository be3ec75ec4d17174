"""A content-addressed cache of tensors on disk: change an input and just what it feeds is computed again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cldistill.storage.files import atomic_file, remove
from cldistill.storage.headers import read_tensors_header

MEMORY_LIMIT = 2 * 1024**3
DIGEST = "sha256"
"""Key in the metadata of an entry of its `tensors_digest`."""


def content_key(*parts: str | int | float) -> str:
    """Hash the parts, each with its type and length, so that no two different lists share a key."""
    digest = hashlib.sha256()
    for part in parts:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "big") + text)
    return digest.hexdigest()


class TensorCache:
    """Named tensors by key: on disk as safetensors, the most recent ones (2 GiB) in memory too."""

    def __init__(self, root: Path, memory_limit: int = MEMORY_LIMIT) -> None:
        self.root = root
        self._memory: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._memory_limit = memory_limit
        self._memory_bytes = 0
        self.computed = 0
        """Entries that had to be computed, for the log and the tests."""

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.root / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Return whether the key is on disk with its digest, as long as its header says; the tensors are not read."""
        try:
            with self.path(key).open("rb") as file:
                header = read_tensors_header(file)
                return DIGEST in header.metadata and header.size == os.fstat(file.fileno()).st_size
        except (OSError, ValueError):
            return False

    def is_sound(self, key: str) -> bool:
        """Return whether the key is on disk and its digest fits; it is read for this, and removed where it is damaged."""
        return key in self._memory or self._read(key) is not None

    def get(self, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of ``key``, computing and storing them where they are missing or damaged."""
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        tensors = self._read(key)
        if tensors is None:
            tensors = {name: value.detach().contiguous().cpu() for name, value in make().items()}
            with atomic_file(self.path(key)) as partial:
                save_file(tensors, partial, {DIGEST: tensors_digest(tensors)})
            self.computed += 1
        self._remember(key, tensors)
        return tensors

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self.path(key)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                loaded = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
                if (file.metadata() or {}).get(DIGEST) == tensors_digest(loaded):
                    return loaded
        except Exception:  # (whatever a damaged file makes its reader say)
            pass
        logging.getLogger(__name__).warning("%s: damaged, or of an older version: made again", path)
        remove(path)
        return None

    def _remember(self, key: str, tensors: dict[str, Tensor]) -> None:
        self._memory[key] = tensors
        self._memory_bytes += _size(tensors)
        while self._memory_bytes > self._memory_limit and len(self._memory) > 1:
            _, dropped = self._memory.popitem(last=False)
            self._memory_bytes -= _size(dropped)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes of CPU tensors."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())
