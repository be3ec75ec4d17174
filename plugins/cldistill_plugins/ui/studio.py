"""The page without its looks: a collection, the pictures made with it, and where they lie until the page closes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cldistill.collection.index import CollectionEffect, sample_path
from cldistill.data.items import open_picture
from cldistill.errors import CollectionError
from cldistill.storage.untrusted import inside
from cldistill_plugins.generation.api import JOIN, Edit, Mounted, file_name, indices, read_edits

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN_SIDE = 1600
"""Longest side of the source beside which a result is shown."""


@dataclass(frozen=True)
class Made:
    """One edited picture: how it is called, and the file that is saved."""

    name: str
    file: Path


@dataclass(frozen=True)
class Studio:
    """A collection that is being tried out; its results lie in a folder of its own, which goes with it."""

    collection: Path
    title: str
    effects: tuple[CollectionEffect, ...]
    samples: dict[str, Path]
    """Effect -> a picture that shows it, where the collection has one."""
    steps: int
    mounted: Mounted
    split: bool
    scratch: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="cldistill-ui-"))

    @property
    def folder(self) -> Path:
        """Folder of sources and results."""
        return Path(self.scratch.name)

    def load(self) -> None:
        """Load the model of the first effect, so that the first picture does not wait for it."""
        self.mounted.collection(read_edits(self.collection, [self.effects[0].name], False)[0].collection)

    def edits(self, chosen: Sequence[str], together: bool) -> list[Edit]:
        """Return what is to be made: each effect on its own, or all on one picture, in the order of the list."""
        if not chosen:
            raise CollectionError("Choose at least one effect.")
        return read_edits(self.collection, [JOIN.join(chosen)] if together else list(chosen), False)

    def source(self, path: Path, name: str) -> Path:
        """Keep the picture as it is compared: upright, in RGB, of a size for screens."""
        picture = open_picture(path)
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return self._keep(picture, f"{file_name(Path(name).stem)}--before")

    def make(self, picture: Path, name: str, edits: Sequence[Edit], seed: int, steps: int) -> Iterator[Made]:
        """Yield the picture with each edit, as it is done."""
        opened = open_picture(picture)
        for edit in edits:
            made = self.mounted.edit(edit, [opened], seed, steps)
            file = self._keep(made, f"{file_name(Path(name).stem)}--{file_name(edit.name)}--seed-{seed}")
            yield Made(edit.name, file)

    def close(self) -> None:
        """Remove what was made."""
        self.scratch.cleanup()

    def _keep(self, picture: Image, stem: str) -> Path:
        number = len(list(self.folder.iterdir()))
        folder = self.folder / f"{number:05d}"
        folder.mkdir()
        path = folder / f"{stem}.png"
        picture.save(path)
        return path


def open_studio(collection: Path, base: str | None, device: str | None) -> Studio:
    """Read a collection, or a split, without loading it.

    Raises:
        CollectionError: it is damaged, or has no effects.
    """
    found = indices(collection)
    effects = tuple(effect for index in found for effect in index.effects)
    if not effects:
        raise CollectionError(f"{collection}: lists no effects; export the collection again")
    named = {e.name: inside(index.file.parent, sample_path(e.name)) for index in found for e in index.effects}
    samples = {name: file for name, file in named.items() if file.is_file()}
    split = len(found) > 1
    title = collection.resolve().name if split else found[0].title
    return Studio(
        collection, title, effects, samples, max(index.schedule.steps for index in found), Mounted(base, device), split
    )
