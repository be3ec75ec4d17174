"""Pictures times edits: which file each of them becomes, decided and judged before a model is loaded (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cldistill.collection.index import CollectionIndex, read_index
from cldistill.data.items import list_pictures, open_picture
from cldistill.errors import CollectionError, DataError
from cldistill.storage.untrusted import file_stem
from cldistill_plugins.generation.splits import routed, routed_folders

Existing = Literal["refuse", "skip", "overwrite"]
JOIN = "+"
"""Between effects that are applied to one picture in order: no name of an effect has it."""
SHOWN = 3
LONGEST = 80


@dataclass(frozen=True)
class Edit:
    """One effect, or several applied in order, as ``--effect`` names them."""

    effects: tuple[str, ...]
    collection: Path
    """The collection that has them: of a split, that of their group."""

    @property
    def name(self) -> str:
        """As it was written, and as files and sheets are lettered."""
        return JOIN.join(self.effects)


@dataclass(frozen=True)
class Cell:
    """One picture with one edit, and the file that it becomes."""

    picture: Path
    edit: Edit
    output: Path


def read_edits(collection: Path, words: Sequence[str], everything: bool) -> list[Edit]:
    """Return the edits that ``--effect`` and ``--all`` name, each once.

    Raises:
        CollectionError: no such effect, with the nearest; or nothing was asked for, with the list of what there is.
    """
    wanted = [tuple(word.split(JOIN)) for word in words]
    if everything:
        wanted += [(name,) for name in names_of(collection)]
    if not wanted:
        known = ", ".join(names_of(collection))
        raise CollectionError(f"name the effects with --effect, or take them --all; {collection} has: {known}")
    return [_edit(collection, effects) for effects in dict.fromkeys(wanted)]


def names_of(collection: Path) -> list[str]:
    """Return the effects of a collection, or of all groups of a split."""
    return [effect.name for index in indices(collection) for effect in index.effects]


def indices(collection: Path) -> list[CollectionIndex]:
    """Return the index of a collection, or those of all groups of a split."""
    return [read_index(folder) for folder in routed_folders(collection)]


def _edit(collection: Path, effects: tuple[str, ...]) -> Edit:
    found = routed(collection, effects)
    read_index(found).prompt(effects)  # an unknown name is said here
    return Edit(effects, found)


def read_pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the pictures of files and folders, in the order given; each is opened once, so that none stops a long job.

    Raises:
        DataError: one is missing or cannot be read, or a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        inside = list_pictures(path) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: holds no pictures; folders inside it are not searched")
        found += inside
    pictures = list(dict.fromkeys(found))
    for path in pictures:
        open_picture(path)
    return pictures


def cells(pictures: Sequence[Path], edits: Sequence[Edit], folder: Path) -> Iterator[Cell]:
    """Yield every picture with every edit; the edits of one collection together, so that each is mounted once.

    The file is called ``PICTURE--EFFECT.png``; pictures of one name in different folders are told apart by a number.
    """
    titles = picture_names(pictures)
    for collection in dict.fromkeys(edit.collection for edit in edits):
        for picture in pictures:
            for edit in edits:
                if edit.collection == collection:
                    yield Cell(picture, edit, folder / f"{titles[picture]}--{file_stem(edit.name)}.png")


def file_name(text: str) -> str:
    """Return a name of an effect or a picture as a file may be called anywhere: letters of any script, digits, ``._+-``."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-._")[:LONGEST] or "unnamed"


def picture_names(pictures: Sequence[Path]) -> dict[Path, str]:
    """Return picture -> the name by which files and sheets know it: its stem, and a number where that is taken."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for picture in pictures:
        name, number = picture.stem, 1
        while name.casefold() in taken:  # some disks know no capitals
            number += 1
            name = f"{picture.stem}-{number}"
        taken.add(name.casefold())
        names[picture] = name
    return names


def refuse_existing(outputs: Sequence[Path]) -> None:
    """Refuse to write over what is there.

    Raises:
        CollectionError: naming the first files, and the ways out.
    """
    there = [path for path in outputs if path.exists()]
    if there:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        names = ", ".join(map(str, there[:SHOWN]))
        raise CollectionError(
            f"{names}{more}: there already; choose another --output, or --existing skip (make the missing ones only) or "
            "--existing overwrite"
        )
