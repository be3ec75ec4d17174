"""What the paper leads one to expect, held against the evaluations: each claim with its figure, interval and verdict.

All intervals are paired bootstraps over test pictures (`cldistill_plugins.evaluation.api`), or over effects where a committed
result has no more than each effect's mean.  A claim holds when its whole interval lies on the expected side, fails when it lies
on the other one, and is open when it does neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cldistill_plugins.evaluation.api import Interval, Resampled, resample

Report = Mapping[str, Any]
Matrix = NDArray[np.float64]
HOLDS, FAILS, OPEN, UNMEASURED = "holds", "does not hold", "open", "not measured"


@dataclass(frozen=True)
class Claim:
    """One expectation and what was found."""

    text: str
    figure: str
    """What the number is."""
    verdict: str
    interval: Interval | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


def values(report: Report, system: str, metric: str, effects: Sequence[str] | None = None) -> Matrix:
    """Return a system's values of a metric, ``[pictures, effects]``; of a committed result its means, ``[effects, 1]``.

    Raises:
        KeyError: the system or the metric is not in the report.
    """
    if "values" not in report:
        means = report["per_effect_means"][system]
        wanted = report["effects"] if effects is None else effects
        found = [means[name][metric] for name in wanted if metric in means.get(name, {})]
        if not found:
            raise KeyError(metric)
        return np.array(found, dtype=np.float64)[:, None]
    pools = report["values"][system]
    names = [e["name"] for e in report["effects"]] if effects is None else list(effects)
    columns = [pools[name][metric] for name in names if metric in pools.get(name, {})]
    if not columns:
        raise KeyError(metric)
    return np.array([[np.nan if v is None else v for v in column] for column in columns], dtype=np.float64).T


def seeds(report: Report, system: str, metric: str, effects: Sequence[str] | None = None) -> Matrix:
    """Return a system's values, averaged over the seeds from which it was trained (``ours``, ``ours-seed-1``)."""
    measured = report.get("values") or report["per_effect_means"]
    names = [name for name in measured if name == system or name.startswith(f"{system}-seed-")]
    return np.mean([values(report, name, metric, effects) for name in names or [system]], axis=0)


def stochastic(report: Report) -> list[str]:
    """Return the names of the stochastic effects; of a committed result those that have an energy distance to their truths."""
    if "values" not in report:
        means = report["per_effect_means"].values()
        return [name for name in report["effects"] if any("truth_energy" in pools.get(name, {}) for pools in means)]
    return [effect["name"] for effect in report["effects"] if effect.get("stochastic")]


def difference(a: Matrix, b: Matrix) -> Interval:
    """Return the paired difference of means, ``a - b``."""
    first, second = resample(a), resample(b)
    return Resampled(first.figure - second.figure, first.draws - second.draws, first.n).interval()


def ratio(a: Matrix, b: Matrix) -> Interval:
    """Return the paired ratio of means, ``a / b``."""
    first, second = resample(a), resample(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(second.draws == 0, np.nan, first.draws / second.draws)
        figure = first.figure / second.figure if second.figure else float("nan")
    return Resampled(float(figure), draws, first.n).interval()


def below(limit: float) -> Callable[[Interval], str]:
    """Judge a figure that should lie clearly below a limit."""
    return lambda i: HOLDS if i.high < limit else FAILS if i.low > limit else OPEN


def above(limit: float) -> Callable[[Interval], str]:
    """Judge a figure that should lie clearly above a limit."""
    return lambda i: HOLDS if i.low > limit else FAILS if i.high < limit else OPEN


def not_above(limit: float) -> Callable[[Interval], str]:
    """Judge a figure that should be at most a limit."""
    return lambda i: HOLDS if i.high <= limit else FAILS if i.low > limit else OPEN


def not_below(limit: float) -> Callable[[Interval], str]:
    """Judge a figure that should be at least a limit, with its whole interval."""
    return lambda i: HOLDS if i.low >= limit else FAILS if i.high < limit else OPEN


def at_least(limit: float) -> Callable[[Interval], str]:
    """Judge a point figure that should reach a limit; an interval that does not clear it is said to be open."""
    return lambda i: (HOLDS if i.low >= limit else OPEN) if i.mean >= limit else FAILS


def of_table1(report: Report) -> list[Claim]:
    """Ours, averaged over its seeds, against the teachers and against plain flow matching."""
    few = stochastic(report)

    def pair(metric: str, a: str, b: str, effects: Sequence[str] | None = None) -> Callable[[], Interval]:
        return lambda: difference(seeds(report, a, metric, effects), seeds(report, b, metric, effects))

    found = [
        claim("Ours at 8 is no worse than Base on the distance to the truth", "truth distance, ours − Base",
              pair("truth_distance", "ours", "teacher"), not_above(0)),
        claim("Ours at 8 is no worse than Base on bad cases", "bad cases, ours − Base",
              pair("bad_case", "ours", "teacher"), not_above(0)),
        claim("Ours at 8 is no worse than Base on subject consistency", "subject consistency, ours − Base",
              pair("vsa", "ours", "teacher"), not_below(0)),
        claim("Ours at 8 is no worse than Base on the effect's recognition", "recognised, ours − Base",
              pair("recognised", "ours", "teacher"), not_below(0)),
    ]  # fmt: skip
    for rival, title in (("teacher-lightning", "Base + Lightning"), ("fm-lightning", "All-in-1 FM + Lightning")):
        found += [
            claim(f"{title} has more bad cases than ours", f"bad cases, {title} − ours",
                  pair("bad_case", rival, "ours"), above(0)),
            claim(f"{title} is further from the truth's detail on stochastic effects", f"detail's distance, {title} − ours",
                  pair("hf_distance", rival, "ours", few), above(0)),
        ]  # fmt: skip
    return found


def of_steps(report: Report) -> list[Claim]:
    """Ours at four steps against the teachers at forty."""
    return [
        claim(f"Ours at 4 is no worse than Base at 40 on {title}", f"{title}, ours at 4 − Base",
              lambda metric=metric: difference(values(report, "ours-4", metric), values(report, "teacher", metric)),
              not_above(0))
        for metric, title in (("truth_distance", "the distance to the truth"), ("bad_case", "bad cases"))
    ]  # fmt: skip


def colliding(report: Report) -> list[str]:
    """Return the effects whose teacher's prompt another effect has too."""
    prompts = [effect["prompt"] for effect in report["effects"]]
    return [effect["name"] for effect in report["effects"] if prompts.count(effect["prompt"]) > 1]


def learned(report: Report) -> list[str]:
    """Return the effects that their own LoRAs (Base, in Table 1) bring out in at least half of the pictures."""
    names = [effect["name"] for effect in report["effects"]]
    return [name for name in names if values(report, "teacher", "bad_case", [name]).mean() <= 0.5]


def of_table3(report: Report, table1: Report | None = None) -> list[Claim]:
    """What each part contributes; with Table 1 also where AOP does, among effects that Base has learned."""

    def of(system: str, metric: str, effects: Sequence[str] | None = None) -> Matrix:
        return values(report, system, metric, effects)

    def aop_cuts(text: str, effects: Callable[[], Sequence[str] | None] = lambda: None) -> Claim:
        def cut() -> Interval:
            chosen = effects()
            return ratio(of("pdsr", "bad_case", chosen), of("aop", "bad_case", chosen))

        return claim(text, "bad cases, PDSR / PDSR + AOP", cut, at_least(1.5))

    known = "— the same, effects that Base has learned (bad in at most half of its pictures)"
    return [
        aop_cuts("Adding AOP to PDSR cuts bad cases by 1.5 times or more (paper: 1.8)"),
        aop_cuts("— the same, effects whose prompt another one has, too", lambda: colliding(report)),
        *([] if table1 is None else [aop_cuts(known, lambda: learned(table1))]),
        claim("Without PDSR general instructions are kept worse", "squared error without PDSR − ours",
              lambda: difference(general(report, "no-pdsr", "error"), general(report, "ours", "error")), above(0)),
        claim("TS-DMD raises high-frequency energy", "log of detail over the truth's, + TS − without",
              lambda: difference(of("ts", "hf_log_ratio"), of("aop", "hf_log_ratio")), above(0)),
        claim("TA-FM lowers bad cases", "bad cases, + TA − without",
              lambda: difference(of("ours", "bad_case"), of("ts", "bad_case")), below(0)),
    ]  # fmt: skip


def of_table5(report: Report, before: str, after: str, own: str = "teacher-lightning") -> list[Claim]:
    """Judge a grown collection: the loss of the old effects, and the new ones beside their own LoRAs with Lightning.

    By how much of itself the distance to the truth grew, and the closeness fell; the second is a share of little where there
    was hardly any to begin with.
    """
    pools = report["values"][before]
    old, bad = [name for name in pools if "truth_distance" in pools[name]], "bad_case"
    new = [effect["name"] for effect in report["effects"] if effect["name"] not in old]

    def share(metric: str, sign: int) -> Interval:
        found = ratio(values(report, after, metric, old), values(report, before, metric, old))
        low, high = sorted((sign * (found.low - 1), sign * (found.high - 1)))
        return Interval(sign * (found.mean - 1), low, high, found.n)

    def beside_own(metric: str) -> Interval:
        return ratio(values(report, after, metric, new), values(report, own, metric, new))

    return [
        claim("After four additions the old effects lose at most 2 %", "growth of the distance to the truth",
              lambda: share("truth_distance", 1), not_above(0.02)),
        claim("— the same by closeness, of which there is little to lose", "share of closeness to the truth lost",
              lambda: share("truth_closeness", -1), not_above(0.02)),
        claim("— and have at most two points more bad cases", "bad cases, after − before",
              lambda: difference(values(report, after, bad, old), values(report, before, bad, old)), not_above(0.02)),
        claim("New effects have at least .95 of the closeness of their own LoRAs with Lightning", "closeness, ours / own",
              lambda: beside_own("truth_closeness"), at_least(0.95)),
        claim("— and are no further from the truth", "distance to the truth, ours / own",
              lambda: beside_own("truth_distance"), not_above(1.0)),
    ]  # fmt: skip


def general(report: Report, system: str, metric: str) -> Matrix:
    """Return a system's values on general instructions, ``[items, 1]``."""
    return np.array(report["values"][system]["general"][metric], dtype=np.float64)[:, None]


def claim(text: str, figure: str, measure: Callable[[], Interval], judge: Callable[[Interval], str]) -> Claim:
    """Measure and judge one expectation; what the report lacks is not measured."""
    try:
        found = measure()
    except KeyError:
        return Claim(text, figure, UNMEASURED)
    return Claim(text, figure, judge(found), found)
