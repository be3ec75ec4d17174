"""The collection in memory; of a split, the one that was asked for last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill_plugins.generation.job import Edit

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill.collection.collection import Collection


class Mounted:
    """Loads what an edit needs when it is needed, and keeps it: one model at a time."""

    def __init__(self, base: str | None = None, device: str | None = None) -> None:
        self.base = base
        self.device = device
        self._path: Path | None = None
        self._loaded: Collection | None = None

    def collection(self, path: Path) -> Collection:
        """Return the loaded collection of ``path``."""
        from cldistill.collection.collection import Collection

        if self._loaded is None or self._path != path:
            self._loaded = None  # before the next one: two would not fit
            self._path, self._loaded = path, Collection.load(path, self.base, self.device)
        return self._loaded

    def edit(self, edit: Edit, pictures: Sequence[Image | Path], seed: int, steps: int | None) -> Image:
        """Return the last of the pictures, edited; the others are references."""
        return self.collection(edit.collection).generate([*pictures], edit.effects, seed, steps)
