"""Numbers as people read them: a mean with its interval, in the digits that it deserves."""

from __future__ import annotations

from cldistill_plugins.evaluation.bootstrap import ONE_PICTURE
from cldistill_plugins.evaluation.report.record import IntervalEntry, MetricRow

NOTHING = "–"
ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
"""Better direction -> the arrow behind a metric's title."""
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, percent: bool = False) -> str:
    """Return a value with three digits after the point (one for large values and percentages)."""
    if value is None:
        return NOTHING
    if percent:
        return _signed(f"{100 * value:.1f}") + " %"
    return _signed(f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}")


def _signed(text: str) -> str:
    zero = not text.strip("-0.")
    return text.lstrip("-") if zero else text.replace("-", MINUS)


def interval(low: float | None, high: float | None, percent: bool = False) -> str:
    """Return ``[low, high]``, or nothing where there is none; a missing upper bound is infinite."""
    if low is None:
        return ""
    ends = (number(low, percent), "∞" if high is None else number(high, percent))
    return f"[{', '.join(end.removesuffix(' %') for end in ends)}]"


def ends_of(found: IntervalEntry, percent: bool = False) -> str:
    """Return ``[low, high]`` of a mean; of one picture there is none, though older reports give its value as both ends."""
    return ONE_PICTURE if found.n == 1 else interval(found.low, found.high, percent)


def text_of(found: IntervalEntry | None, metric: MetricRow) -> str:
    """Return ``mean [low, high]`` of a metric."""
    if found is None or found.mean is None:
        return NOTHING
    ends = ends_of(found, metric.percent)
    return f"{number(found.mean, metric.percent)} {f'({ends})' if ends == ONE_PICTURE else ends}".strip()
