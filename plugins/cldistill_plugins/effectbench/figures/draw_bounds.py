"""Draws Figure 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .style import COLOURS, GREY

TITLES = {
    "cosine": "cosine of −g with y − ŷ, high frequencies\n(1: towards the target, 0: across, −1: away)",
    "pull": "what −g moves towards y, high frequencies\n(luma, root mean square × 1000)",
}
SCALES = {"cosine": 1.0, "pull": 1000.0}
FORMATS = {"cosine": "{:.2f}", "pull": "{:.0f}"}


def draw_bounds(data: Mapping[str, Any]) -> Figure:
    """Return the figure of ``figure5`` of ``figures.json``: direction, pull, and beside them over-smoothing, step by step."""
    figure = Figure(figsize=(15, 6.4), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1.5, 1.5, 1.0))
    for axes, (name, title) in zip(panels, TITLES.items(), strict=False):
        _map(axes, data, name)
        axes.set_title(title)
        axes.set_xlabel("timestep t_critic of the comparison (of 1000)")
    panels[0].set_ylabel("timestep t_gen of the student's step (of 1000)")
    _energy(panels[2], data)
    effects, pairs = len(data["effects"]), data["pairs"]
    figure.suptitle(
        f"TS-DMD's bounds: t_gen < {data['tau_max']:g} and t_critic > {data['tau_min']:g} (framed); mean over {effects} "
        f"effects, {pairs} training pair{'s' if pairs > 1 else ''} each; whiskers: 95 % bootstrap over effects",
        fontsize=12,
    )
    return figure


def first_row_below(t_gen: list[float], tau_max: float) -> int:
    """Index of the first of the descending steps that lies strictly below the bound; their number where none does."""
    return sum(t >= tau_max - 1e-3 for t in t_gen)


def _map(axes: Axes, data: Mapping[str, Any], name: str) -> None:
    cells = [[np.nan if cell["mean"] is None else cell["mean"] for cell in row] for row in data[name]["high"]]
    means = np.array(cells, dtype=float) * SCALES[name]
    known = np.abs(means[np.isfinite(means)])
    # Zero is white in both directions, and mere noise is not blown up to full colour.
    reach = max(0.2 if name == "cosine" else 1e-9, known.max(initial=0.0))
    axes.imshow(means, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    for (row, column), value in np.ndenumerate(means):
        if np.isfinite(value):
            shade = "white" if abs(value) > 0.65 * reach else "black"
            axes.text(column, row, FORMATS[name].format(value), ha="center", va="center", fontsize=11, color=shade)
    axes.set_xticks(range(len(data["t_critic"])), [f"{t:.0f}" for t in data["t_critic"]])
    axes.set_yticks(range(len(data["t_gen"])), [f"{t:.0f}" for t in data["t_gen"]])
    axes.grid(False)
    _frame(axes, data)


def _frame(axes: Axes, data: Mapping[str, Any]) -> None:
    """Draw the two bounds across the map, and a frame around what they leave to TS-DMD."""
    rows, columns = len(data["t_gen"]), len(data["t_critic"])
    top = first_row_below(data["t_gen"], data["tau_max"]) - 0.5
    start = data["tau_min"] / 1000.0 * columns - 0.5
    axes.axhline(top, color="black", linestyle="--", linewidth=1.2)
    axes.axvline(start, color="black", linestyle="--", linewidth=1.2)
    size = (columns - 0.5 - start, rows - 0.5 - top)
    axes.add_patch(Rectangle((start, top), *size, fill=False, edgecolor="black", linewidth=3.5, clip_on=False))


def _energy(axes: Axes, data: Mapping[str, Any]) -> None:
    places = np.arange(len(data["t_gen"]))
    mean, low, high = (np.array([v[key] for v in data["energy"]], dtype=float) for key in ("mean", "low", "high"))
    axes.errorbar(mean, places, xerr=[mean - low, high - mean], fmt="o", color=COLOURS[0], capsize=4, linewidth=1.8)
    axes.axvline(0.0, color=GREY, linewidth=1.2)
    axes.axhline(first_row_below(data["t_gen"], data["tau_max"]) - 0.5, color="black", linestyle="--", linewidth=1.2)
    axes.set_yticks(places, [f"{t:.0f}" for t in data["t_gen"]])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_title("detail of ŷ against that of y\n(below 0: over-smooth)")
    axes.set_xlabel("high-frequency energy, dB")
