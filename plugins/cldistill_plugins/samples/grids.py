"""Labelled grids of pictures: column headings above, a label beside each row, a caption below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image as Pillow
from PIL import ImageDraw

from cldistill.storage.files import atomic_write_bytes
from cldistill_plugins.samples.lettering import set_text

if TYPE_CHECKING:
    from PIL.Image import Image

PAPER = (255, 255, 255)
EMPTY = (243, 243, 245)
LABEL = 132
"""Least width, in pixels, that a row's label may take."""


@dataclass(frozen=True)
class GridRow:
    """One row: a label (what follows a newline is set small and wrapped) and its pictures, None for a gap."""

    label: str
    pictures: Sequence[Image | None]


def without_empty(rows: Sequence[GridRow], columns: Sequence[str]) -> tuple[list[GridRow], list[str]]:
    """Leave out the columns in which no row has a picture."""
    kept = [place for place in range(len(columns)) if any(row.pictures[place] is not None for row in rows)]
    return [GridRow(row.label, [row.pictures[at] for at in kept]) for row in rows], [columns[at] for at in kept]


def labelled_grid(
    rows: Sequence[GridRow], columns: Sequence[str], caption: str | None = None, cell: int = 192
) -> Image:
    """Return one picture of all rows; pictures of any size and mode keep their aspect inside ``cell`` x ``cell``.

    A heading may have a second line too.  Raises ValueError where a row does not have one picture (or None) for each
    column.
    """
    for row in rows:
        if len(row.pictures) != len(columns):
            raise ValueError(f"row {row.label!r} has {len(row.pictures)} pictures for {len(columns)} columns")
    heads = [set_text(heading, cell) for heading in columns]
    labels = [set_text(row.label, max(cell, LABEL), cell) for row in rows]
    gap = max(4, cell // 24)
    margin, pitch = 2 * gap, cell + gap
    widest = max((block.width for block in labels), default=0)
    highest = max((block.height for block in heads), default=0)
    left, top = margin + (widest + 2 * gap if widest else 0), margin + (highest + gap if highest else 0)
    width, height = left + len(columns) * pitch - gap + margin, top + len(rows) * pitch - gap + margin
    foot = set_text(f"\n{caption or ''}", width - 2 * margin)
    sheet = Pillow.new("RGB", (width, height + (foot.height + gap if caption else 0)), PAPER)
    for index, head in enumerate(heads):
        head.draw(sheet, left + index * pitch + (cell - head.width) // 2, top - gap - head.height, "middle")
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + number * pitch
        label.draw(sheet, left - gap * 3 // 2 - label.width, y + (cell - label.height) // 2, "right")
        for index, picture in enumerate(row.pictures):
            _place(sheet, picture, (left + index * pitch, y), cell)
    if caption:
        foot.draw(sheet, margin, height - gap // 2, "left")
    return sheet


def save_grid(path: Path, rows: Sequence[GridRow], columns: Sequence[str], caption: str | None = None) -> Path:
    """Write the grid as a PNG in one step and return its path."""
    buffer = BytesIO()
    labelled_grid(rows, columns, caption).save(buffer, format="PNG", optimize=True)
    atomic_write_bytes(path, buffer.getvalue())
    return path


def _place(sheet: Image, picture: Image | None, corner: tuple[int, int], cell: int) -> None:
    """Paste a picture into the middle of its cell; what it does not cover stays pale."""
    x, y = corner
    scale = cell / max(picture.size) if picture is not None else 0.0
    size = (round(picture.width * scale) or 1, round(picture.height * scale) or 1) if picture is not None else (0, 0)
    if size != (cell, cell):
        ImageDraw.Draw(sheet).rectangle((x, y, x + cell - 1, y + cell - 1), fill=EMPTY)
    if picture is None:
        return
    layer = picture.convert("RGBA")
    if layer.size != size:
        layer = layer.resize(size, Pillow.Resampling.BICUBIC if scale > 1 else Pillow.Resampling.LANCZOS)
    sheet.paste(layer, (x + (cell - size[0]) // 2, y + (cell - size[1]) // 2), layer)
