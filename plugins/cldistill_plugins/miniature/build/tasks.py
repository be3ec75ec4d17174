"""Everything the transformer is asked for in training: the general edits, the styles and the filters, with their wordings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from cldistill_plugins.miniature.build.filters import draw_filters
from cldistill_plugins.miniature.build.latents import EDITS
from cldistill_plugins.miniature.build.pictures import Picture
from cldistill_plugins.miniature.build.styles import load_styles
from cldistill_plugins.miniature.instructions import INSTRUCTIONS, Instruction

EDITS_A_PICTURE, STYLES_A_PICTURE, FILTERS_A_PICTURE = 6, 8, 4
TASKS_A_PICTURE = EDITS_A_PICTURE + STYLES_A_PICTURE + FILTERS_A_PICTURE
HARD_EDITS = ("mirror", "flip", "rotate", "outline", "posterise")
"""Drawn twice as often as the others: they move pixels or make edges, the others only recolour."""


class Task(Protocol):
    """A callable that turns a picture into another."""

    @property
    def wordings(self) -> tuple[str, ...]:
        """Prompts that ask for it."""

    def apply(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The picture, edited: the same shape."""


class Edit:
    """A general edit as a task."""

    def __init__(self, instruction: Instruction) -> None:
        self.wordings = instruction.wordings
        self._instruction = instruction

    def apply(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The edit has one fixed strength; nothing is drawn."""
        return self._instruction.apply(picture)


def load_tasks(work: Path) -> Mapping[str, Task]:
    """Every task by name, edits first (`work` keeps the styles); the order is that of the numbers in the chunks."""
    tasks: dict[str, Task] = {name: Edit(INSTRUCTIONS[name]) for name in EDITS}
    tasks |= {style.name: style for style in load_styles(work)}
    return tasks | {chosen.name: chosen for chosen in draw_filters()}


def choose_tasks(names: list[str], styles: int, rng: np.random.Generator, square: bool) -> list[int]:
    """Numbers of one picture's tasks; `names` are the edits, then `styles` styles, then filters.

    A quarter turn would swap the sides of a picture that is not square, so only square ones get it.
    """
    edits = len(EDITS)
    weights = np.array([2.0 if name in HARD_EDITS else 1.0 for name in EDITS])
    if not square:
        weights[EDITS.index("rotate")] = 0
    chosen = [
        rng.choice(edits, EDITS_A_PICTURE, replace=False, p=weights / weights.sum()),
        edits + rng.choice(styles, STYLES_A_PICTURE, replace=False),
        edits + styles + rng.choice(len(names) - edits - styles, FILTERS_A_PICTURE, replace=False),
    ]
    return [int(number) for number in np.concatenate(chosen)]
