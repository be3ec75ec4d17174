"""Contact sheets: a row for each picture, its own state first, then one column for each edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.items import open_picture
from cldistill_plugins.generation.job import Edit, picture_names
from cldistill_plugins.samples.api import GridRow, save_grid

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS = 20
"""Pictures on one sheet: more than fit on a screen are more sheets."""
SIDE = 384
"""Longest side that is kept of a picture while its sheet is laid out."""
NAME = "contact-sheet"


def sheet_paths(folder: Path, pictures: int) -> list[Path]:
    """Return the files of so many pictures' sheets: ``contact-sheet.png``, or numbered ones."""
    count = -(-pictures // ROWS)
    return [folder / (f"{NAME}.png" if count == 1 else f"{NAME}-{number}.png") for number in range(1, count + 1)]


def write_sheets(
    folder: Path, pictures: Sequence[Path], edits: Sequence[Edit], made: Mapping[tuple[Path, Edit], Path], caption: str
) -> list[Path]:
    """Lay out the pictures that lie on the disk and return the sheets' files."""
    names, paths = picture_names(pictures), sheet_paths(folder, len(pictures))
    for number, path in enumerate(paths):
        rows = [
            GridRow(names[picture], [_small(picture), *(_small(made[picture, edit]) for edit in edits)])
            for picture in pictures[number * ROWS : (number + 1) * ROWS]
        ]
        save_grid(path, rows, ["source", *(edit.name.replace("+", " + ") for edit in edits)], caption)
    return paths


def _small(path: Path) -> Image:
    picture = open_picture(path)
    picture.thumbnail((SIDE, SIDE))
    return picture
