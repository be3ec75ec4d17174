"""Pictures, pairs and instructions on disk, as a reader lists them.  No torch: ``check`` looks at a whole data set.

Files are read by whatever is registered under the entry points of the group `READERS`: objects that do what `Reader` says.
The first one, by name, that knows what it is given is asked; of the refusals of all, the first is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from cldistill.errors import DataError
from cldistill.records import GENERAL, EffectInfo, Item, Prompts

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl",
)  # fmt: skip
READERS = "cldistill.data"
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """The pairs that lie at a path, as a reader of layouts lists them."""

    layout: str
    """The way they lie there, in words: ``source/ and target/``."""
    items: tuple[Item, ...]
    """In the order of their keys; without ``target`` where no after-picture belongs to it."""
    captions: int = 0
    """Items with a prompt of their own."""
    problems: tuple[str, ...] = ()
    """Things left out, a sentence each: which file, what is wrong, what to do."""

    @property
    def told(self) -> str:
        """The listing in words: ``40 pairs by source/ and target/, 38 with captions``."""
        kind = "pairs" if any(item.target for item in self.items) else "pictures"
        parts = [f"{len(self.items)} {kind} by {self.layout}"]
        parts += [f"{self.captions} with captions"] if self.captions else []
        parts += [f"{len(self.problems)} left out, the first: {self.problems[0]}"] if self.problems else []
        return ", ".join(parts)

    def sound(self, skip: bool = False) -> Listing:
        """Return the listing itself; raises `DataError` with its first problem, with ``skip`` only if it has nothing else."""
        if self.problems and not (skip and self.items):
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise DataError(f"{self.problems[0]}{more}")
        return self


class Reader(Protocol):
    """A reader of data: each method raises `DataError` for what it does not know.

    ``opened`` asks for every picture to be decoded; one that is damaged is left out and told among the problems.
    """

    def open_picture(self, picture: Path | str | Image) -> Image:
        """Return an RGB picture."""

    def list_pairs(self, pairs: Path, pool: str, prompt: str, *, opened: bool) -> Listing:
        """List the pairs of an effect; a pair without a prompt of its own has ``prompt``."""

    def list_instructions(self, images: Path, file: Path, pool: str, *, opened: bool) -> Listing:
        """List pictures of a folder, each with an instruction and perhaps the true result."""

    def unreadable(self, paths: Iterable[Path]) -> Sequence[str]:
        """Return a sentence for every picture that cannot be read."""


@lru_cache(maxsize=1)
def _readers() -> tuple[Reader, ...]:
    return tuple(point.load() for point in sorted(entry_points(group=READERS), key=lambda point: point.name))


def _first(ask: Callable[[Reader], T]) -> T:
    refusals = [DataError(f"nothing installed reads data (no entry point of the group {READERS!r})")]
    for reader in _readers():
        try:
            return ask(reader)
        except DataError as error:
            refusals.append(error)
    raise refusals[min(1, len(refusals) - 1)]


def open_picture(picture: Path | str | Image) -> Image:
    """Return an RGB picture of any file or PIL image: sRGB, EXIF rotation applied, transparency laid on white.

    Raises `DataError` with the path if the file is missing or no picture.
    """
    return _first(lambda reader: reader.open_picture(picture))


def unreadable(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for every picture that cannot be read; of known content, none is opened twice."""
    listed = tuple(paths)
    return list(_first(lambda reader: reader.unreadable(listed)))


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, sorted by name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if is_picture(path))


def is_picture(path: Path) -> bool:
    """Return whether a file is called like a picture; macOS's ``._x.png``, and other hidden ones, are none."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def held_out_pictures(folder: Path, count: int | None = None) -> list[Path]:
    """Return the first ``count`` pictures of a folder, by name; DataError for none, or for two of one name."""
    pictures = list_pictures(folder)[:count]
    if not pictures:
        raise DataError(f"{folder}: holds no pictures")
    for before, after in pairwise(pictures):
        if before.stem == after.stem:
            raise DataError(f"{after}: {before.name} has the same name; a report knows pictures by it, so rename one")
    return pictures


def list_pairs(pairs: Path, pool: str, prompt: str, *, opened: bool = False) -> Listing:
    """List the pairs at a path, in any layout that a reader knows; a pair's own prompt is what its teacher is told.

    Raises `DataError`: there are none; with what lies there, and what would be accepted.
    """
    return _first(lambda reader: reader.list_pairs(pairs, pool, prompt, opened=opened))


def listing_of(effect: EffectInfo, *, opened: bool = False) -> Listing:
    """List all pairs of an effect that has some; where damaged ones are skipped, every picture is opened.

    Raises `DataError` as `list_pairs` does.
    """
    assert effect.pairs is not None
    return list_pairs(effect.pairs, effect.name, effect.prompt, opened=opened or effect.skip)


def pairs_of(effect: EffectInfo, listing: Listing | None = None) -> list[Item]:
    """List the pairs that an effect is trained on: all but held-out ones, or ``effect.take``, spread evenly over the names.

    Raises `DataError` as `listing_of` does, and for a pair that is wrong unless those are skipped.
    """
    listing = (listing or listing_of(effect)).sound(effect.skip)
    items, held = listing.items, held_pairs(effect, listing)
    if held and len(held) == len(items):
        raise DataError(f"{effect.pairs}: evaluate.pairs holds out all its {len(held)} pairs; leave some to train on")
    return evenly([item for item in items if item not in held], effect.take)


def held_pairs(effect: EffectInfo, listing: Listing | None = None) -> list[Item]:
    """List the pairs of an effect that are held out of training; raises `DataError` as `listing_of` does."""
    if effect.pairs is None or not effect.held_out:
        return []
    whole = [item for item in (listing or listing_of(effect)).items if item.target is not None]
    return evenly(whole, effect.held_out)


def drawn_by_name(items: Iterable[Item], count: int) -> list[Item]:
    """Return up to ``count`` of the items, always the same ones: those whose keys hash lowest."""
    return sorted(items, key=lambda item: hashlib.sha256(item.key.encode()).digest())[:count]


def item_prompts(item: Item, effect: EffectInfo, prompts: Prompts) -> Prompts:
    """Return an effect's prompts for one of its items: a pair with a prompt of its own has it told to the teacher."""
    return prompts if item.prompt == effect.prompt else replace(prompts, teacher=item.prompt)


def evenly(items: list[Item], count: int | None) -> list[Item]:
    """Return ``count`` of the items, spread evenly over them; all where it is None or there are no more."""
    if count is None or count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def list_general(images: Path, instructions: Path, *, opened: bool = False) -> Listing:
    """List the general stream: a JSONL of ``image`` (or a list of them) and ``instruction``, relative to ``images``.

    A line may name the true result as ``target``, by which retention can be measured.
    """
    return _first(lambda reader: reader.list_instructions(images, instructions, GENERAL, opened=opened))


def general_items(images: Path, instructions: Path) -> list[Item]:
    """Return the items of `list_general`; raises `DataError` for the first line that is wrong."""
    return list(list_general(images, instructions).sound().items)
