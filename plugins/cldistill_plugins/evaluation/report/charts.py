"""The report's plots as Vega-Lite specifications, made with Altair.  Colours of text and axes are the page's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import altair as alt

from cldistill_plugins.evaluation.report.figures import number, text_of
from cldistill_plugins.evaluation.report.record import Curve, Evaluation

COLOURS = (
    "#0077bb", "#ee7733", "#009988", "#cc3311", "#aa66cc", "#b8860b", "#ee3377", "#33aadd", "#778833", "#888888",
)  # fmt: skip
"""Told apart by most colour-blind readers (after Tol's "bright" scheme), and seen on white and on black."""
FAMILY_COLOURS = ("#5566cc", "#cc4466", "#c9a227", *COLOURS)
HEIGHT = 280
ROW = 24
SHORT = 14
"""Letters of a legend's name of which two fit beside each other on a phone."""


def metric_charts(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one plot a measured metric: every system's mean with its interval, the floor as a dashed line."""
    charts = ((name, _metric_rows(evaluation, name)) for name in evaluation.metrics)
    return [_metric_chart(evaluation, name, rows) for name, rows in charts if rows]


def _metric_rows(evaluation: Evaluation, name: str) -> list[dict[str, Any]]:
    metric = evaluation.metrics[name]
    return [
        {"system": system.label, "mean": found.mean, "n": found.n, "text": text_of(found, metric),
         "low": found.low if found.n != 1 else None, "high": found.high if found.n != 1 else None}
        for system in evaluation.systems
        if (found := evaluation.summary.get(system.name, {}).get(name)) is not None and found.mean is not None
    ]  # fmt: skip


def _metric_chart(evaluation: Evaluation, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    metric, labels = evaluation.metrics[name], [system.label for system in evaluation.systems]
    axis = alt.Axis(format="%" if metric.percent else "", tickCount=5, grid=True, labelOverlap=True, labelSeparation=8)
    x = alt.X("mean:Q", title=None, scale=alt.Scale(zero=False, nice=True), axis=axis)
    y = alt.Y("system:N", sort=labels, title=None, axis=alt.Axis(labelLimit=150))
    tooltip = [
        alt.Tooltip("system:N"),
        alt.Tooltip("text:N", title="mean [95 %]"),
        alt.Tooltip("n:Q", title="pictures"),
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(y=y, color=_colour("system", labels, legend=False), tooltip=tooltip)
    marks = [
        base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=alt.X("low:Q", title=None), x2="high:Q"),
        base.mark_point(filled=True, size=90, opacity=1).encode(x=x),
    ]
    floor = evaluation.floors.get(name)
    if floor is not None and floor.mean is not None:
        line = [{"floor": floor.mean, "text": f"floor (fresh truth) {text_of(floor, metric)}"}]
        marks.append(
            alt.Chart(alt.Data(values=line))
            .mark_rule(strokeDash=[4, 4], strokeWidth=1.5)
            .encode(x="floor:Q", tooltip=[alt.Tooltip("text:N", title="floor")])
        )
    better = {"lower": " (lower is better)", "higher": " (higher is better)", None: ""}[metric.better]
    words = "; ".join(f"{row['system']} {row['text']}" for row in rows)
    return _spec(alt.layer(*marks), metric.title + better, f"{metric.title}: {words}", {"step": ROW})


def failure_chart(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return how many pictures of each failure family every system has, or ``None`` where there are none."""
    labels = [system.label for system in evaluation.systems]
    rows = [
        {"system": system.label, "family": title, "cases": count}
        for system in evaluation.systems
        for family, title in evaluation.families.items()
        if (count := count_failures(evaluation, system.name, family))
    ]
    if not rows:
        return None
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("sum(cases):Q", title="pictures", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("system:N", sort=labels, scale=alt.Scale(domain=labels), title=None),
            color=_colour("family", list(evaluation.families.values()), colours=FAMILY_COLOURS),
            order=alt.Order("family:N"),
            tooltip=["system:N", "family:N", "cases:Q"],
        )
    )
    words = "; ".join(f"{row['system']}, {row['family']}: {row['cases']}" for row in rows)
    return _spec(chart, "Failures by kind", words, {"step": ROW})


def count_failures(evaluation: Evaluation, system: str, family: str) -> int:
    """Count a system's pictures of one family."""
    effects = evaluation.failures.get(system, {}).values()
    return sum(found == family for keys in effects for found in keys.values())


def curve_charts(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one plot a curve of the report."""
    labels = {name: place for place, row in enumerate(evaluation.systems) for name in (row.name, row.label)}
    return [_curve_chart(curve, index, labels) for index, curve in enumerate(evaluation.curves)]


def _curve_chart(curve: Curve, index: int, systems: Mapping[str, int]) -> dict[str, Any]:
    """A line that is called like a system has that system's colour; others have what is left."""
    rows = [{"line": line.name, "x": x, "y": y} for line in curve.lines for x, y in line.points if y is not None]
    names = [line.name for line in curve.lines]
    free = [colour for place, colour in enumerate(COLOURS) if place not in {systems.get(name) for name in names}]
    left = cycle(free or COLOURS)
    colours = [COLOURS[systems[name] % len(COLOURS)] if name in systems else next(left) for name in names]
    chosen = alt.selection_point(name=f"lines_{index}", fields=["line"], bind="legend")
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=alt.OverlayMarkDef(size=30), strokeWidth=2)
        .encode(
            x=alt.X("x:Q", title=curve.x or None, scale=alt.Scale(zero=False, nice=False)),
            y=alt.Y("y:Q", title=curve.y or None, scale=alt.Scale(zero=False)),
            color=_colour("line", names, colours=colours),
            opacity=alt.condition(chosen, alt.value(1.0), alt.value(0.12)),
            tooltip=[
                alt.Tooltip("line:N", title="line"), alt.Tooltip("x:Q", title=curve.x or "x"),
                alt.Tooltip("y:Q", title=curve.y or "y", format=".4~g"),
            ],
        )
        .add_params(chosen)
        .properties(name=f"curve_{index}")
    )  # fmt: skip
    ends = "; ".join(f"{line.name} ends at {_last(line.points)}" for line in curve.lines)
    return _spec(chart, curve.title, f"{curve.title}: {ends}", HEIGHT)


def _last(points: Sequence[tuple[float, float | None]]) -> str:
    return number(points[-1][1]) if points else number(None)


def _colour(field: str, names: Sequence[str], legend: bool = True, colours: Sequence[str] = COLOURS) -> alt.Color:
    columns = 2 if max(map(len, names), default=0) <= SHORT else 1  # beside each other where a phone has room for both
    legend_of = alt.Legend(orient="bottom", title=None, columns=columns, labelLimit=300, symbolOpacity=1)
    shown = legend_of if legend else None
    repeated = [colours[index % len(colours)] for index in range(len(names))]
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(names), range=repeated), legend=shown)


def _spec(chart: alt.Chart | alt.LayerChart, title: str, description: str, height: Any) -> dict[str, Any]:
    """Return the specification, as wide as its place; without Altair's theme, for the page brings its own."""
    spec: dict[str, Any] = chart.properties(width="container", height=height, description=description).to_dict()
    spec.pop("config", None)
    return {"title": title, "spec": spec}
