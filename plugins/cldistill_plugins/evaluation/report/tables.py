"""The rows of the report's tables, ready for the template."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cldistill_plugins.evaluation.report.figures import ends_of, number
from cldistill_plugins.evaluation.report.record import (
    ComparisonEntry,
    EffectRow,
    Evaluation,
    IntervalEntry,
    MetricRow,
    SystemRow,
)


@dataclass(frozen=True)
class Cell:
    """One figure of a table."""

    value: float | None
    """The figure that the column sorts by."""
    text: str
    interval: str = ""
    best: bool = False


def cell(found: IntervalEntry | None, metric: MetricRow, best: bool = False) -> Cell:
    """Return the cell of an interval, empty where nothing was measured."""
    if found is None or found.mean is None:
        return Cell(None, number(None))
    return Cell(found.mean, number(found.mean, metric.percent), ends_of(found, metric.percent), best)


@dataclass(frozen=True)
class SummaryRow:
    """One system with a cell a metric."""

    system: SystemRow
    cells: Mapping[str, Cell]


def summary_rows(evaluation: Evaluation) -> list[SummaryRow]:
    """Return the main table; the best mean of every metric that has a better direction is marked, and all that read like it."""
    best = {name: _best(evaluation, name) for name in evaluation.metrics}
    return [
        SummaryRow(
            system,
            {
                name: cell(evaluation.summary.get(system.name, {}).get(name), metric, system.name in best[name])
                for name, metric in evaluation.metrics.items()
            },
        )
        for system in evaluation.systems
        if evaluation.summary.get(system.name) or not evaluation.summary
    ]


def _best(evaluation: Evaluation, metric: str) -> Collection[str]:
    better, percent = evaluation.metrics[metric].better, evaluation.metrics[metric].percent
    rows = ((system.name, evaluation.summary.get(system.name, {}).get(metric)) for system in evaluation.systems)
    means = {name: found.mean for name, found in rows if found is not None and found.mean is not None}
    if better is None or len(means) < 2:
        return ()
    best = number((min if better == "lower" else max)(means.values()), percent)
    return {name for name, mean in means.items() if number(mean, percent) == best}


@dataclass(frozen=True)
class ScoreRow:
    """One effect by one system."""

    effect: EffectRow
    system: SystemRow
    failures: Mapping[str, int]
    """Bad cases by failure family, in words."""
    cells: Mapping[str, Cell]

    @property
    def kind(self) -> str:
        """``stochastic``, ``deterministic`` or nothing where the report does not say."""
        return {True: "stochastic", False: "deterministic", None: ""}[self.effect.stochastic]


def score_rows(evaluation: Evaluation) -> list[ScoreRow]:
    """Return the table of single effects; of a system nothing is said about effects that it was not asked for."""
    return [
        ScoreRow(
            effect,
            system,
            count_families(evaluation.failures.get(system.name, {}).get(effect.name, {}).values()),
            {
                name: cell(evaluation.per_effect.get(system.name, {}).get(effect.name, {}).get(name), metric)
                for name, metric in evaluation.metrics.items()
            },
        )
        for effect in evaluation.effects
        for system in evaluation.systems
        if evaluation.per_effect.get(system.name, {}).get(effect.name) or not evaluation.per_effect
    ]


def count_families(families: Iterable[str]) -> dict[str, int]:
    """Count failure families, those that occur, by name."""
    return dict(sorted(Counter(families).items()))


RATIO = MetricRow(title="ratio of the means")


@dataclass(frozen=True)
class ComparisonRow:
    """A paired difference in words."""

    a: str
    b: str
    metric: MetricRow
    effects: str
    difference: Cell
    ratio: Cell | None
    n: int
    clear: bool
    verdict: str


def comparison_rows(evaluation: Evaluation) -> list[ComparisonRow]:
    """Return the paired comparisons; a metric that the report does not describe is shown under its own name."""
    titles = {system.name: system.label for system in evaluation.systems}
    rows = []
    for found in evaluation.comparisons:
        metric = evaluation.metrics.get(found.metric, MetricRow(title=found.metric))
        difference = cell(IntervalEntry(mean=found.mean, low=found.low, high=found.high, n=found.n), metric)
        rows.append(
            ComparisonRow(
                titles.get(found.a, found.a), titles.get(found.b, found.b), metric, _effects(found), difference,
                None if found.ratio is None else cell(found.ratio, RATIO), found.n,
                _is_clear(found), verdict(found, metric),
            )
        )  # fmt: skip
    return rows


def _effects(found: ComparisonEntry) -> str:
    if isinstance(found.effects, str | int):
        return str(found.effects)
    return str(len(found.effects)) if len(found.effects) > 3 else ", ".join(found.effects)


def _is_clear(found: ComparisonEntry) -> bool:
    """Return whether the interval leaves out zero; one picture has none, though older reports call it clear."""
    return found.clear and found.mean is not None and found.n != 1


def verdict(found: ComparisonEntry, metric: MetricRow) -> str:
    """Say in a word which side is better, where the difference is clear."""
    if not _is_clear(found) or found.mean is None:
        return "no clear difference"
    if metric.better is None:
        return "higher" if found.mean > 0 else "lower"
    return "better" if (found.mean < 0) == (metric.better == "lower") else "worse"
