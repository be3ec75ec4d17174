"""From what metrics found to figures with intervals: means over pictures, over effects, and differences of two systems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cldistill.records import FLOOR, GENERAL, Column, MetricValues
from cldistill_plugins.evaluation.bootstrap import LEVEL, Interval, Matrix, Resampled, resample
from cldistill_plugins.evaluation.measure import Measured
from cldistill_plugins.evaluation.metrics import BuiltMetric

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Series:
    """One metric of one system on one pool."""

    top: Sequence[float]
    """A value a picture, or what the numerator of a ratio is made of."""
    bottom: Sequence[float] | None = None
    """A ratio's denominator."""
    whole: float | None = None
    """A figure of the whole set that comes without what it was made of."""


@dataclass(frozen=True)
class Figures:
    """All series of an evaluation: ``series[system][metric][pool]``, and how each metric is shown."""

    columns: Mapping[str, tuple[str, Column]]
    """Metric -> (its component, how it is shown)."""
    series: Mapping[str, Mapping[str, Mapping[str, Series]]]

    def pools(self, system: str, metric: str) -> list[str]:
        """Return the pools whose mean is the metric's figure: all effects' (and probes') or, failing those, the general one."""
        known = list(self.series.get(system, {}).get(metric, {}))
        return [pool for pool in known if pool != GENERAL] or known

    def interval(self, system: str, metric: str, pools: Iterable[str]) -> Interval:
        """Return the mean over pools of a metric, its interval by resampling pictures."""
        chosen = [self.series[system][metric][pool] for pool in pools]
        if any(one.whole is not None for one in chosen):
            wholes = [one.whole for one in chosen if one.whole is not None and math.isfinite(one.whole)]
            mean = float(np.mean(wholes)) if wholes else math.nan
            return Interval(mean, math.nan, math.nan, max(len(one.top) for one in chosen))
        return resampled(chosen).interval()

    def summary(self, system: str) -> dict[str, Interval]:
        """Return every metric of a system, over all its pools."""
        return {metric: self.interval(system, metric, self.pools(system, metric)) for metric in self.series[system]}

    def per_pool(self, system: str) -> dict[str, dict[str, Interval]]:
        """Return pool -> metric -> interval of a system."""
        found: dict[str, dict[str, Interval]] = {}
        for metric, pools in self.series[system].items():
            for pool in pools:
                found.setdefault(pool, {})[metric] = self.interval(system, metric, [pool])
        return found


def make_figures(metrics: Sequence[BuiltMetric], measured: Measured) -> Figures:
    """Sort all answers by system, metric and pool; two components with one name for a figure are told apart."""
    columns: dict[str, tuple[str, Column]] = {}
    series: dict[str, dict[str, dict[str, Series]]] = {}
    for built in metrics:
        for system, pools in measured.answers.get(built.name, {}).items():
            for pool, values in pools.items():
                for name, found in series_of(values).items():
                    owner = columns.get(name, (built.name, None))[0]
                    shown = name if owner == built.name else f"{built.name}:{name}"
                    columns.setdefault(shown, (built.name, built.column(name)))
                    series.setdefault(system, {}).setdefault(shown, {})[pool] = found
    return Figures(columns, series)


def series_of(values: MetricValues) -> dict[str, Series]:
    """Return the figures that a metric found of one pool; a ratio, or a figure of the whole set, wins over a mean."""
    found = {name: Series(list(own)) for name, own in values.per_picture.items() if own}
    for name, figure in values.summary.items():
        found[name] = Series(found[name].top if name in found else (), whole=figure)
    for name, ratio in values.ratios.items():
        found[name] = Series(list(ratio.numerator), list(ratio.denominator))
    return found


def resampled(chosen: Sequence[Series], known: Mask | None = None) -> Resampled:
    """Resample the pictures of several pools together; ``known`` leaves values out, ``[pictures, pools]``."""
    top, bottom = _table([one.top for one in chosen]), _table([one.bottom or [1.0] * len(one.top) for one in chosen])
    if known is not None:
        top = np.where(known, top, np.nan)
    means = all(one.bottom is None for one in chosen)
    return resample(top, None if means else bottom)


def _table(lists: Sequence[Sequence[float]]) -> Matrix:
    """Put lists side by side, ``[pictures, lists]``; a shorter one (of a probe) ends in gaps."""
    longest = max((len(one) for one in lists), default=0)
    table = np.full((max(longest, 1), max(len(lists), 1)), np.nan)
    for place, one in enumerate(lists):
        table[: len(one), place] = one
    return table


@dataclass(frozen=True)
class PairedDifference:
    """The paired difference ``a - b`` of one metric on the same pictures, and for errors and rates the ratio ``a / b``."""

    a: str
    b: str
    metric: str
    effects: str
    """``all``, or ``stochastic``."""
    difference: Interval
    ratio: Interval | None = None


def compare(
    figures: Figures, a: str, b: str, only: set[str] | None = None, named: str = "all"
) -> list[PairedDifference]:
    """Compare two systems by every metric that both have, on the pools that both have (``only``: these effects)."""
    found = []
    for metric in figures.series.get(a, {}):
        if metric not in figures.series.get(b, {}):
            continue
        common = set(figures.pools(b, metric))
        pools = [p for p in figures.pools(a, metric) if p in common and (only is None or p.partition("/")[0] in only)]
        left, right = ([figures.series[s][metric][pool] for pool in pools] for s in (a, b))
        if not pools or any(one.whole is not None for one in (*left, *right)):
            continue
        found.append(_paired(a, b, metric, named, left, right, figures.columns[metric][1]))
    return found


def _paired(
    a: str, b: str, metric: str, named: str, left: Sequence[Series], right: Sequence[Series], column: Column
) -> PairedDifference:
    known = np.isfinite(_table([one.top for one in left])) & np.isfinite(_table([one.top for one in right]))
    one, two = resampled(left, known), resampled(right, known)
    difference = Resampled(one.figure - two.figure, one.draws - two.draws, one.n).interval()
    ratio = None
    if column.better == "lower" and min(one.figure, two.figure, *one.draws, *two.draws) >= 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = np.divide(one.draws, two.draws)
        figure = one.figure / two.figure if two.figure > 0 else math.nan
        # A resample without any bad case of b has no bound (inf), one without any of both counts as equal.
        equal = np.where(np.isnan(draws), 1.0, draws)
        low, high = np.quantile(equal, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        ratio = Interval(figure, *((float(low), float(high)) if one.n > 1 else (math.nan, math.nan)), one.n)
    return PairedDifference(a, b, metric, named, difference, ratio)


def as_json(interval: Interval) -> dict[str, Any]:
    """Return an interval as plain data; what is not known is None."""
    parts = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**{name: value if math.isfinite(value) else None for name, value in parts.items()}, "n": interval.n}


def floors(figures: Figures) -> dict[str, Interval]:
    """Return what metrics found of fresh truth."""
    return figures.summary(FLOOR) if FLOOR in figures.series else {}
