"""Cases (one effect on one picture), the worst first: what a reader wants to see, and what is embedded first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from statistics import fmean

from cldistill.records import GENERAL, HELD_PAIRS, probe_pool
from cldistill_plugins.evaluation.report.record import Evaluation


@dataclass(frozen=True)
class ReportCase:
    """One effect (or its held-out pairs, or the general pool) on one picture, by every system."""

    effect: str
    key: str
    place: int
    """The picture's index in the lists of values."""
    failing: int
    """Number of systems that failed."""
    badness: tuple[float, ...]
    """Means over the systems of every metric that has a better direction, in the report's order; higher is worse."""


def cases_of(evaluation: Evaluation) -> list[ReportCase]:
    """List all cases: more failing systems first, then those with a held-out truth, then worse figures."""
    held = [probe_pool(name, HELD_PAIRS) for name in evaluation.held_pairs]
    pools = [*held, *(effect.name for effect in evaluation.effects)]
    if evaluation.general.items:
        pools.append(GENERAL)
    found = [
        ReportCase(pool, key, place, _failing(evaluation, pool, key), tuple(_badness(evaluation, pool, place)))
        for pool in pools
        for place, key in enumerate(evaluation.keys_of(pool))
    ]
    return sorted(found, key=lambda case: (-case.failing, case.effect not in held, *(-value for value in case.badness)))


def in_turns(cases: Iterable[ReportCase]) -> list[ReportCase]:
    """Deal cases out by effect: everybody's worst, then everybody's second worst, and so on."""
    hands: dict[str, list[ReportCase]] = {}
    for case in cases:
        hands.setdefault(case.effect, []).append(case)
    return [case for case in chain.from_iterable(zip_longest(*hands.values())) if case is not None]


def _failing(evaluation: Evaluation, pool: str, key: str) -> int:
    return sum(key in effects.get(pool, {}) for effects in evaluation.failures.values())


def _badness(evaluation: Evaluation, pool: str, place: int) -> Iterator[float]:
    for name, metric in evaluation.metrics.items():
        if metric.better is None:
            continue
        lists = [pools.get(pool, {}).get(name) for pools in evaluation.values.values()]
        values = [v for v in (values[place] for values in lists if values is not None) if v is not None]
        sign = -1.0 if metric.better == "higher" else 1.0
        yield sign * fmean(values) if values else float("-inf")
