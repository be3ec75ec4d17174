"""Means with percentile bootstrap intervals over pictures (Efron 1979), seeded.

Pictures are the unit that is resampled: two systems on the same pictures are compared by their *paired* difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def clear_of_zero(self) -> bool:
        """True when the whole interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0


def mean_interval(values: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over pictures and its interval.

    Args:
        values: (pictures,), or (pictures, effects): whole pictures are then resampled and everything is averaged.
        level: mass of the interval, in (0, 1).

    Raises:
        ValueError: no pictures, values that are not finite, or a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is the mass of the interval, above 0 and below 1, not {level}")
    per_picture = _per_picture(values)
    n = per_picture.size
    picks = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    # Deviations from the first value keep constants exact: their interval has no width at all.
    origin = per_picture[0]
    means = (per_picture - origin)[picks].mean(axis=1) + origin
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float((per_picture - origin).mean() + origin), low=float(low), high=float(high), n=n)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean and interval of ``a - b``, picture by picture: shapes as in :func:`mean_interval`, and equal.

    Raises:
        ValueError: shapes differ, or as :func:`mean_interval`.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"a paired difference needs the same pictures twice, not {left.shape} and {right.shape}")
    return mean_interval(left - right, level=level, resamples=resamples, seed=seed)


def _per_picture(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError("a mean over pictures needs at least one picture")
    if not np.isfinite(array).all():
        raise ValueError("a mean over pictures needs finite values; some are NaN or infinite")
    return array if array.ndim == 1 else array.reshape(array.shape[0], -1).mean(axis=1)
