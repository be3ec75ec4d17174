"""Gains and losses of every effect by a growth: figures from an evaluation's ``report.json``, and their table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cldistill.records import GENERAL
from cldistill_plugins.evaluation.api import ONE_PICTURE, resample
from cldistill_plugins.incremental.growing_manifest import BEFORE, TAUGHT

AFTER = "after"
"""Name of the grown collection among the systems."""
SHOWN = 12
"""Old effects that are listed one by one; of more, those that clearly changed."""
COLUMNS = 3
"""Metrics in the table; ``growth.json`` has all."""


@dataclass(frozen=True)
class Change:
    """One metric of one effect (or of all old ones): two systems, and their paired difference."""

    first: float
    """Of the old collection; for a new effect: of its own teacher."""
    after: float
    difference: float
    low: float | None
    high: float | None
    """Bootstrap interval of the difference, 95 %; None of one picture, or of one value for all pictures."""
    gain: bool | None
    """True: the interval says that it got better; False: worse; None: neither, or unknown."""
    n: int | None = None
    """Pictures with a value by both; None where there is one value for all pictures."""

    @property
    def relative(self) -> float:
        """The difference as a share of the first value."""
        return self.difference / abs(self.first) if self.first else math.nan


Changes = Mapping[str, Change]
"""Metric -> its change."""


@dataclass(frozen=True)
class MeasuredGrowth:
    """All that a growth changed: read from an evaluation by `outcome`, written to ``growth.json`` and printed."""

    old: Mapping[str, Changes]
    """Old effect -> its changes against the old collection."""
    mean: Changes
    """The mean over the old effects."""
    new: Mapping[str, Changes]
    """New effect -> the grown collection against its own teacher."""
    general: Changes
    titles: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        groups = {"old": self.old, "new": self.new}
        return {
            "format": 1,
            **{name: {effect: _json(own) for effect, own in group.items()} for name, group in groups.items()},
            "mean_old": _json(self.mean),
            "general": _json(self.general),
            "metrics": dict(self.titles),
        }


def _json(changes: Changes) -> dict[str, Any]:
    return {
        metric: {**asdict(change), "relative": None if math.isnan(change.relative) else change.relative}
        for metric, change in changes.items()
    }


def outcome(report: Mapping[str, Any], new: Sequence[str]) -> MeasuredGrowth:
    """Read what changed from an evaluation of the systems `BEFORE`, `AFTER` and `TAUGHT`."""
    metrics = {name: entry for name, entry in report["metrics"].items() if entry["better"] is not None}
    names = [effect["name"] for effect in report["effects"]]
    old = [name for name in names if name not in new]
    mean = {
        name: change for name in metrics if (change := _change(report, name, metrics[name], BEFORE, old)) is not None
    }

    def changes(effect: str, first: str) -> Changes:
        found = {name: _change(report, name, metrics[name], first, [effect]) for name in metrics}
        return {name: change for name, change in found.items() if change is not None}

    return MeasuredGrowth(
        old={effect: changes(effect, BEFORE) for effect in old},
        mean=mean,
        new={effect: changes(effect, TAUGHT) for effect in names if effect in new},
        general=changes(GENERAL, BEFORE),
        titles={name: entry["title"] for name, entry in metrics.items()},
    )


def _change(
    report: Mapping[str, Any], metric: str, entry: Mapping[str, Any], first: str, pools: Sequence[str]
) -> Change | None:
    """Compare the grown collection with ``first``: by pictures, where the metric has values of those."""
    one, two = (_table(report, system, metric, pools) for system in (first, AFTER))
    if one is not None and two is not None and one.shape == two.shape:
        known = np.isfinite(one) & np.isfinite(two)
        if not known.any():
            return None
        found = resample(np.where(known, two - one, np.nan)).interval()
        better = found.mean > 0 if entry["better"] == "higher" else found.mean < 0
        means = [float(np.nanmean(np.where(known, values, np.nan), axis=0).mean()) for values in (one, two)]
        gain = better if found.clear_of_zero else None
        low, high = (found.low, found.high) if found.n > 1 else (None, None)
        return Change(means[0], means[1], found.mean, low, high, gain, found.n)
    whole = [_whole(report, system, metric, pools) for system in (first, AFTER)]
    if whole[0] is None or whole[1] is None:
        return None
    return Change(whole[0], whole[1], whole[1] - whole[0], None, None, None)


def _table(report: Mapping[str, Any], system: str, metric: str, pools: Sequence[str]) -> Any:
    """Return values ``[pictures, pools]``, or None where a pool has none."""
    rows = [report["values"].get(system, {}).get(pool, {}).get(metric) for pool in pools]
    if not rows or any(row is None for row in rows):
        return None
    return np.array([[math.nan if value is None else value for value in row] for row in rows], dtype=float).T


def _whole(report: Mapping[str, Any], system: str, metric: str, pools: Sequence[str]) -> float | None:
    """Return the mean of figures that exist for whole pools only."""
    if list(pools) == [GENERAL]:
        found = [report.get("general", {}).get("summary", {}).get(system, {}).get(metric)]
    else:
        found = [report["per_effect"].get(system, {}).get(pool, {}).get(metric) for pool in pools]
    values = [entry["mean"] for entry in found if entry is not None and entry["mean"] is not None]
    return float(np.mean(values)) if values and len(values) == len(found) else None


def table(growth: MeasuredGrowth) -> Table:
    """Return the table: old effects, their mean, new effects against their teachers, general instructions."""
    metrics = list(growth.titles)
    effects = [name for name in metrics if name in growth.mean][:COLUMNS]
    general = [name for name in metrics if name in growth.general][:COLUMNS]
    made = Table("", "", *(escape(growth.titles[name]) for name in effects), box=SIMPLE_HEAD, pad_edge=False)
    listed = {name: own for name, own in growth.old.items() if len(growth.old) <= SHOWN or _clear(own, effects)}
    for name, own in listed.items():
        made.add_row("old", escape(name), *(_cell(own.get(metric)) for metric in effects))
    if len(listed) < len(growth.old):
        made.add_row("", f"{len(growth.old) - len(listed)} others: no clear change", *([""] * len(effects)))
    made.add_row(
        "old", f"mean of {len(growth.old)}", *(_cell(growth.mean.get(metric)) for metric in effects), style="bold"
    )
    for name, own in growth.new.items():
        made.add_row("new", f"{escape(name)}, from its teacher", *(_cell(own.get(metric)) for metric in effects))
    for metric in general:
        made.add_row(
            "general", escape(growth.titles[metric]), _cell(growth.general[metric]), *([""] * (len(effects) - 1))
        )
    return made


def _clear(changes: Changes, metrics: Sequence[str]) -> bool:
    return any(metric in changes and changes[metric].gain is not None for metric in metrics)


def _cell(change: Change | None) -> str:
    if change is None:
        return "–"
    interval = f" [{change.low:+.3f}, {change.high:+.3f}]" if change.low is not None and change.high is not None else ""
    interval = f" ({ONE_PICTURE})" if change.n == 1 else interval
    colour = {True: "green", False: "red", None: None}[change.gain]
    text = f"{change.first:.3f} → {change.after:.3f} {change.difference:+.3f}{interval}".replace("[", "\\[")
    return f"[{colour}]{text}[/]" if colour else text
