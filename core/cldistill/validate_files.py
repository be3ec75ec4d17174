"""The last phase of validation: pictures and files exist, and adapters fit the base (by their headers alone)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from cldistill.checked import CheckedManifest, Part
from cldistill.data import effect_items, general_items, list_pictures
from cldistill.errors import CldistillError, DataError, ManifestError
from cldistill.manifest_yaml import Loc
from cldistill.records import GENERAL, Item

SHOWN = 10
"""Mistakes of this phase that are listed; fifty missing teachers are one mistake."""

T = TypeVar("T")


class _Files:
    """Collects what is missing while it goes through the manifest."""

    def __init__(self, checked: CheckedManifest) -> None:
        self.checked = checked
        self.problems: list[str] = []

    def attempt(self, loc: Loc, action: Callable[[], T]) -> T | None:
        """Run ``action``; an error becomes a problem at ``loc``."""
        try:
            return action()
        except CldistillError as error:
            self.problems.append(f"{self.checked.file.where(*loc)}: {error}")
            return None

    def exists(self, loc: Loc, path: Path) -> bool:
        """Note a file or folder that is not there."""
        if path.exists():
            return True
        self.problems.append(f"{self.checked.file.where(*loc)}: no such file or folder ({str(path)!r})")
        return False


def check_files(checked: CheckedManifest) -> CheckedManifest:
    """Return ``checked`` with its items and teachers' ranks filled in.

    Raises:
        ManifestError: with one line for every missing file, picture without a partner, or adapter that does not fit.
    """
    files = _Files(checked)
    items = _items(files)
    _pictures(files)
    ranks = dict(_teachers(files))
    for part in checked.parts():
        for path in part.needs.files:
            files.exists((*part.loc, "options"), path)
    for name, slot in checked.manifest.slots.items():
        if isinstance(slot.init, Path):
            _fit(files, ("slots", name, "init"), slot.init)
    if files.problems:
        rest = len(files.problems) - SHOWN
        more = [f"... and {rest} more"] if rest > 0 else []
        raise ManifestError("\n".join([*files.problems[:SHOWN], *more]))
    return replace(checked, items=items, teacher_ranks=ranks)


def _items(files: _Files) -> dict[str, tuple[Item, ...]]:
    items: dict[str, tuple[Item, ...]] = {}
    for index, effect in enumerate(files.checked.effects):
        if effect.pairs is not None:
            listing = partial(effect_items, effect.pairs, effect.name, effect.prompt)
            found = files.attempt(("effects", index, "pairs"), listing)
            items[effect.name] = tuple(found or ())
    general = files.checked.manifest.general
    if general is not None and files.exists(("general", "images"), general.images):
        found = files.attempt(("general", "instructions"), partial(general_items, general.images, general.instructions))
        items[GENERAL] = tuple(found or ())
    return items


def _pictures(files: _Files) -> None:
    manifest = files.checked.manifest
    folders: list[tuple[Loc, Path]] = []
    if manifest.samples is not None:
        folders.append((("samples", "images"), manifest.samples.images))
    if manifest.evaluate is not None:
        folders.append((("evaluate", "images"), manifest.evaluate.images))
        if manifest.evaluate.general is not None:
            listing = partial(general_items, manifest.evaluate.general.parent, manifest.evaluate.general)
            files.attempt(("evaluate", "general"), listing)
    for loc, folder in folders:
        files.attempt(loc, partial(_some_pictures, folder))


def _some_pictures(folder: Path) -> None:
    if not list_pictures(folder):
        raise DataError(f"{folder}: holds no pictures")


def _teachers(files: _Files) -> Iterator[tuple[str, int]]:
    for index, effect in enumerate(files.checked.effects):
        part: Part | None = files.checked.teachers[effect.name]
        if part is None:
            continue
        if part.needs.adapter is not None:
            rank = _fit(files, ("effects", index, "teacher", "options"), part.needs.adapter)
            if rank is not None:
                yield effect.name, rank
        elif part.needs.rank is not None:
            yield effect.name, part.needs.rank


def _fit(files: _Files, loc: Loc, path: Path) -> int | None:
    """Return the largest rank of an adapter file that fits the base."""
    from cldistill.adapter_files import fit, read_header

    if not files.exists(loc, path):
        return None

    def look() -> int:
        header = read_header(path)
        fit(header, files.checked.description)
        return max(module.rank for module in header.modules.values())

    return files.attempt(loc, look)
