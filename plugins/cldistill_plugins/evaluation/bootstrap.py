"""Means with percentile bootstrap intervals over pictures (Efron 1979), seeded.

Pictures are the unit that is resampled: two systems on the same pictures are compared by their *paired* difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
LEVEL = 0.95
ONE_PICTURE = "one picture: no interval"

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its bootstrap interval, whose ends are ``nan`` where there is none."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def clear_of_zero(self) -> bool:
        """True when the whole interval lies on one side of zero."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, slots=True)
class Resampled:
    """A figure of all pictures, and the same figure of every resample of them."""

    figure: float
    draws: Matrix
    """``[resamples]``; ``nan`` where a resample holds no picture that has a value."""
    n: int
    """Pictures that have a value."""

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the figure with its percentile interval; ``nan`` where nothing has a value, or one picture alone.

        Every resample of one picture is that picture: an interval without width would pass for certainty.
        """
        finite = self.draws[np.isfinite(self.draws)]
        if not finite.size or self.n < 2:
            return Interval(self.figure, float("nan"), float("nan"), self.n)
        low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
        return Interval(self.figure, float(low), float(high), self.n)


def resample(
    numerator: ArrayLike, denominator: ArrayLike | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Resampled:
    """Resample whole pictures: the mean over effects of each effect's ``sum(numerator) / sum(denominator)``.

    Calls with as many pictures draw the same resamples, so that figures of two systems on the same pictures may be
    subtracted or divided draw by draw: that is the paired bootstrap.

    Args:
        numerator: ``[pictures]`` or ``[pictures, effects]``; ``nan`` where a picture has no value.
        denominator: of the same shape; by default 1, which gives means.

    Raises:
        ValueError: no pictures, or two shapes.
    """
    top = _matrix(numerator)
    bottom = np.ones_like(top) if denominator is None else _matrix(denominator)
    if top.shape != bottom.shape:
        raise ValueError(f"a ratio needs the same pictures twice, not {top.shape} and {bottom.shape}")
    known = np.isfinite(top) & np.isfinite(bottom)
    n = int(known.any(axis=1).sum())
    # Deviations from one value keep constants exact: their interval has no width at all.
    origin = float(top[known][0]) if denominator is None and known.any() else 0.0
    top, bottom = np.where(known, top - origin, 0.0), np.where(known, bottom, 0.0)
    draws = _figures(_counts(len(top), resamples, seed), top, bottom, origin)
    return Resampled(float(_figures(np.ones((1, len(top))), top, bottom, origin)[0]), draws, n)


def mean_interval(values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean over pictures and its interval.

    Args:
        values: (pictures,), or (pictures, effects): whole pictures are then resampled and everything is averaged.
        level: mass of the interval, in (0, 1).

    Raises:
        ValueError: no pictures, values that are not finite, or a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is the mass of the interval, above 0 and below 1, not {level}")
    matrix = _matrix(values)
    if not np.isfinite(matrix).all():
        raise ValueError("a mean over pictures needs finite values; some are NaN or infinite")
    return resample(matrix.mean(axis=1), resamples=resamples, seed=seed).interval(level)


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean and interval of ``a - b``, picture by picture: shapes as in :func:`mean_interval`, and equal.

    Raises:
        ValueError: shapes differ, or as :func:`mean_interval`.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"a paired difference needs the same pictures twice, not {left.shape} and {right.shape}")
    return mean_interval(left - right, level=level, resamples=resamples, seed=seed)


def _matrix(values: ArrayLike) -> Matrix:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0:
        raise ValueError("a mean over pictures needs at least one picture")
    return array.reshape(array.shape[0], -1)


@lru_cache(maxsize=8)
def _counts(pictures: int, resamples: int, seed: int) -> Matrix:
    """Count how often each resample holds each picture, ``[resamples, pictures]``; kept, and not to be written into."""
    picks = np.random.default_rng(seed).integers(0, pictures, size=(resamples, pictures))
    counts = np.zeros((resamples, pictures))
    np.add.at(counts, (np.arange(resamples)[:, None], picks), 1.0)
    return counts


def _figures(counts: Matrix, top: Matrix, bottom: Matrix, origin: float) -> Matrix:
    """Mean over effects of each effect's ratio of sums, one a row of ``counts``; effects without a value do not count."""
    sums, weights = counts @ top, counts @ bottom
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = sums / weights
    there = np.isfinite(effects)
    totals, numbers = np.where(there, effects, 0.0).sum(axis=1), there.sum(axis=1)
    return np.where(numbers > 0, totals / np.maximum(numbers, 1) + origin, np.nan)
