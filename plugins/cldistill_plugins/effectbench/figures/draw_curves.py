"""Draws Figure 9."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import line_style

COLUMNS = 3


def draw_curves(charts: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a panel for each chart of ``figure9``; a run keeps its colour in all of them."""
    names = list(dict.fromkeys(line["name"] for chart in charts for line in chart["lines"]))
    styles = {name: line_style(index) for index, name in enumerate(names)}
    columns = min(COLUMNS, len(charts))
    rows = math.ceil(len(charts) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, chart in zip(panels, charts, strict=False):
        _panel(axes, chart, styles)
    for axes in panels[len(charts) :]:
        axes.set_visible(False)
    keys = [Line2D([], [], label=name, **style) for name, style in styles.items()]  # type: ignore[arg-type]
    figure.legend(handles=keys, loc="outside upper center", ncols=min(4, len(keys)))
    return figure


def _panel(axes: Axes, chart: Mapping[str, Any], styles: Mapping[str, Mapping[str, str]]) -> None:
    for line in chart["lines"]:
        x, y = zip(*line["points"], strict=True)
        marker = "o" if len(x) < 12 else ""
        axes.plot(x, y, marker=marker, markersize=5, **styles[line["name"]])  # type: ignore[arg-type]
    axes.set_title(chart["title"])
    axes.set_xlabel(chart["x"])
    axes.set_ylabel(chart["y"])
