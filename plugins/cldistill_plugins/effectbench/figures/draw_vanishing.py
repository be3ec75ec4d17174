"""Draws Figure 4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import COLOURS, GREY, note
from .vanishing import SAMPLES

TITLES = {"difference": "f − r, as it is", "normalised": "(f − r) / mean |ŷ − r|, as in the loss"}
SCALES = {"difference": "log", "normalised": "linear"}
UNITS = {"latent": "latent, root mean square", "bands": "change in luma, root mean square"}
BANDS = {"low": ("low frequencies", "-", "o"), "high": ("high frequencies", "--", "s")}


def draw_vanishing(data: Mapping[str, Any]) -> Figure:
    """Return the figure of ``figure4`` of ``figures.json``: latent above, picture below; as it is left, normalised right."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    for column, form in enumerate(TITLES):
        for sample, colour in zip(SAMPLES, COLOURS, strict=False):
            found = data["values"][sample]
            _line(grid[0][column], data["t"], found["latent"][form], colour, SAMPLES[sample], "-", "o")
            for band, (name, dashes, marker) in BANDS.items():
                _line(
                    grid[1][column], data["t"], found[band][form], colour, f"{sample.upper()}, {name}", dashes, marker
                )
        grid[0][column].set_title(TITLES[form])
        for row, unit in enumerate(UNITS.values()):
            _finish(grid[row][column], data["tau_min"])
            grid[row][column].set_ylabel(unit)
        grid[0][column].set_yscale(SCALES[form])
        grid[1][column].set_yscale(SCALES[form])
        grid[1][column].set_xlabel("timestep t_critic at which critic and teacher are compared (of 1000)")
    for row in grid:
        row[0].legend(loc="lower right", fontsize=10)
        row[1].set_ylim(bottom=0.0)
        note(
            row[0],
            data["tau_min"] - 12,
            f"TS-DMD leaves this out:\nt_critic > tau_min = {data['tau_min']:g}",
            align="right",
        )
    effects, pairs = len(data["effects"]), data["pairs"]
    figure.suptitle(
        f"Size of the distribution-matching gradient at each noise level: critic f minus teacher r\n"
        f"mean over {effects} effects, {pairs} training pair{'s' if pairs > 1 else ''} each; shaded: 95 % bootstrap over "
        f"effects; low and high frequencies meet at {data['cut_off']:g} cycles a pixel",
        fontsize=12,
    )
    return figure


def _line(
    axes: Axes, t: list[float], values: list[dict[str, float | None]], colour: str, name: str, dashes: str, marker: str
) -> None:
    mean, low, high = (np.array([value[key] for value in values], dtype=float) for key in ("mean", "low", "high"))
    axes.plot(t, mean, color=colour, linestyle=dashes, marker=marker, markersize=5, label=name)
    axes.fill_between(t, low, high, color=colour, alpha=0.15, linewidth=0)


def _finish(axes: Axes, tau_min: float) -> None:
    axes.set_xlim(0, 1000)
    axes.axvspan(0, tau_min, color="#000000", alpha=0.04, linewidth=0)
    axes.axvline(tau_min, color=GREY, linewidth=1.2)
