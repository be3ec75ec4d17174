"""Closeness to an effect's truth, and which effect's truth is nearest.  Pure functions of distances.

An effect's *truth* on a picture is one picture where the effect is deterministic and a set of draws where it is
stochastic; the distance to it is the distance to the nearest draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Nearest:
    """The effect whose truth is nearest to an output, and the distance to each effect's truth."""

    effect: str
    distances: Mapping[str, float]

    def is_right(self, asked_for: str) -> bool:
        """True when the nearest truth is that of the effect that was asked for."""
        return self.effect == asked_for


def nearest_draw(distances: ArrayLike) -> NDArray[np.float64]:
    """Distance to the nearest draw: (..., draws) to (...).

    Raises:
        ValueError: no draws, or a distance that is not finite.
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError("the distance to a truth needs at least one draw of it")
    if not np.isfinite(values).all():
        raise ValueError("a distance to a truth draw is not finite: the output or the truth holds NaN or infinity")
    return np.asarray(values.min(axis=-1))


def closeness(output: ArrayLike, source: ArrayLike) -> NDArray[np.float64]:
    """``1 - d(output) / d(source)`` elementwise: 1 is the truth, 0 no nearer than the unedited source, below 0 farther.

    Args:
        output: distances of outputs to the truth.
        source: distances of the unedited sources to the same truth, above 0.

    Raises:
        ValueError: a source equals its truth, where closeness has no meaning.
    """
    base = np.asarray(source, dtype=np.float64)
    if (base <= 0).any():
        raise ValueError("closeness needs effects that change the picture, but a source is equal to its truth")
    return np.asarray(1.0 - np.asarray(output, dtype=np.float64) / base)


def nearest_effect(distances: Mapping[str, Sequence[float]]) -> Nearest:
    """The effect whose nearest truth draw is nearest to an output.

    Args:
        distances: for each effect the output's distances to that effect's truth draws on the same picture.

    Raises:
        ValueError: no effects, or an effect without draws.
    """
    if not distances:
        raise ValueError("there must be at least one effect to compare with")
    best = {effect: float(nearest_draw(draws)) for effect, draws in distances.items()}
    return Nearest(effect=min(best, key=best.__getitem__), distances=best)
