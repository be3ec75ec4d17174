"""Which two effects are composed, in which order, and how a model is asked for both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from cldistill.collection.index import COMPOSITION
from cldistill.errors import DataError


@dataclass(frozen=True)
class Pair:
    """Two effects in the order in which they are applied."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """``first > second``."""
        return f"{self.first} > {self.second}"

    @property
    def swapped(self) -> Pair:
        """The other order."""
        return Pair(self.second, self.first)


def draw_pairs(names: Sequence[str], count: int, seed: int) -> list[Pair]:
    """Draw ``count`` times two different effects, each twice in the result: in both orders.

    Raises:
        DataError: there are fewer than ``count`` pairs.
    """
    possible = list(combinations(sorted(names), 2))
    if count > len(possible):
        raise DataError(f"{count} pairs of effects were asked for, but {len(names)} effects make only {len(possible)}")
    drawn = random.Random(f"pairs {seed}").sample(possible, count)
    return [pair for first, second in drawn for pair in (Pair(first, second), Pair(second, first))]


def both(first: str, second: str) -> str:
    """Ask for two effects in the paper's words."""
    first, second = first.rstrip(". "), second.rstrip(". ")
    return f"Please apply {first} to the input image{COMPOSITION}{second}."
