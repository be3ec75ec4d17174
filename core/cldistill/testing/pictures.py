"""Small pictures, pairs and instructions for tests."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageOps
from PIL.Image import Image, Resampling, frombytes

from cldistill.data.items import list_pairs
from cldistill.records import Item

INSTRUCTIONS = ("make it darker", "make it brighter", "mirror it", "turn it grey")


def picture(seed: int = 0, size: tuple[int, int] = (24, 24)) -> Image:
    """Return a picture of ``size`` (width, height): soft colours that depend on the seed."""
    pixels = random.Random(seed).randbytes(3 * 3 * 3)
    return frombytes("RGB", (3, 3), pixels).resize(size, Resampling.BICUBIC)


def after(before: Image) -> Image:
    """Return the picture with the effect that the kit's pairs show: inverted."""
    return ImageOps.invert(before)


def write_pairs(
    folder: Path,
    count: int = 4,
    size: tuple[int, int] = (24, 24),
    seed: int = 0,
    others: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write ``folder/source`` and ``folder/target`` with ``count`` pairs, and one more pair of each size in ``others``."""
    for index, extent in enumerate([*[size] * count, *others]):
        before = picture(seed * 1000 + index, extent)
        for side, shown in (("source", before), ("target", after(before))):
            (folder / side).mkdir(parents=True, exist_ok=True)
            shown.save(folder / side / f"{index:03d}.png")
    return folder


def write_pictures(folder: Path, count: int = 2, size: tuple[int, int] = (24, 24), seed: int = 100) -> Path:
    """Write ``count`` pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture(seed + index, size).save(folder / f"{index:03d}.png")
    return folder


def write_general(folder: Path, count: int = 4, seed: int = 500) -> Path:
    """Write pictures to ``folder``, and beside it the JSONL of instructions, whose path is returned."""
    write_pictures(folder, count, seed=seed)
    rows = [
        {"image": f"{index:03d}.png", "instruction": INSTRUCTIONS[index % len(INSTRUCTIONS)]} for index in range(count)
    ]
    file = folder.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def effect_items(pairs: Path, pool: str, prompt: str) -> list[Item]:
    """Return the pairs at a path as items; raises `DataError` for the first that is wrong."""
    return list(list_pairs(pairs, pool, prompt).sound().items)
