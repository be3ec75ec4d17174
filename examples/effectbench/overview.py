"""The page's first picture: each effect on a held-out picture, which nothing was trained on, by its own LoRA and by the one.

Which picture an effect is shown on is not chosen by its looks: the square held-out pictures are dealt out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cldistill_plugins.samples.api import GridRow, labelled_grid

COLUMNS, CELL = 10, 112
OWN, ONE = "teacher", "ours"
LABELS = {"source": "picture", OWN: "its own LoRA\n{} evaluations", ONE: "the one LoRA\n{} evaluations"}


def draw_overview(evaluation: Path, report: Mapping[str, Any], into: Path) -> Path | None:
    """Write the picture of an evaluation's folder, ten effects a band, and return ``into``; None without its pictures."""
    square = [name for name in report["pictures"] if _square(evaluation / "pictures" / "source" / f"{name}.webp")]
    evaluations = {system["name"]: system["evaluations"] for system in report["systems"]}
    if not square or not {OWN, ONE} <= evaluations.keys():
        return None
    names = [effect["name"] for effect in report["effects"]]
    shown = {name: square[number % len(square)] for number, name in enumerate(names)}
    bands = [
        labelled_grid(
            [
                GridRow(text.format(evaluations.get(row)), _pictures(evaluation / "pictures" / row, shown, band))
                for row, text in LABELS.items()
            ],
            [name.replace("-", " ") for name in band],
            cell=CELL,
        )
        for band in (names[start : start + COLUMNS] for start in range(0, len(names), COLUMNS))
    ]
    sheet = Image.new("RGB", (max(band.width for band in bands), sum(band.height for band in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    sheet.save(into, quality=90)
    return into


def _pictures(folder: Path, shown: Mapping[str, str], band: Sequence[str]) -> list[Image.Image]:
    files = [(folder if folder.name == "source" else folder / name) / f"{shown[name]}.webp" for name in band]
    return [Image.open(file).convert("RGB") for file in files]


def _square(file: Path) -> bool:
    if not file.is_file():
        return False
    with Image.open(file) as picture:
        return picture.width == picture.height
