"""The truth of two effects, one after the other, and when an output counts as having both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bank import Picture, derived_seed, truth_draws


def composed_draws(
    first: str, second: str, picture: Picture, draws: int, seed: int = 0, cache: Path | None = None
) -> NDArray[np.uint8]:
    """Truths of ``second(first(picture))``: (draws, H, W, 3) uint8, one where both effects are deterministic.

    The i-th draw of the second effect is made of the i-th of the first (of its only one, where it is deterministic).
    """
    begun = truth_draws(first, picture, draws, seed, cache)
    if len(begun) == 1:
        return truth_draws(second, begun[0], draws, seed, cache)
    own = derived_seed("composed", seed, first, second)
    return np.concatenate([truth_draws(second, draw, 1, own, cache) for draw in begun])


@dataclass(frozen=True)
class CompositionScores:
    """The scores of one output of two composed effects, made by `judge`: 1 or 0, ``nan`` where it cannot be told."""

    success: float
    """Nearer to its composition's truth than to the source, either effect alone and the other order."""
    both_effects: float
    """The same without the other order."""
    order_right: float
    """Nearer to it than to the other order's truth."""
    distance: float
    """HED-VGG LPIPS to the composition's nearest truth."""


def judge(own: float, rivals: Mapping[str, float]) -> CompositionScores:
    """Judge an output by its distances to its own truth and to ``source``, ``first``, ``second`` and ``swapped``.

    Where both orders have one and the same truth, the order cannot be wrong and only the effects count.
    """
    both = all(own < rivals[name] for name in ("source", "first", "second"))
    order = float("nan") if rivals["swapped"] == own else float(own < rivals["swapped"])
    return CompositionScores(float(both and order != 0.0), float(both), order, own)
