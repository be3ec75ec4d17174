"""The common style of the figures: black on white, fonts that can be read, colours that the colour-blind can tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cldistill.storage.files import atomic_write_bytes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, without its yellow, which white swallows."""
DASHES = ("-", "--", ":", "-.")
GREY = "#555555"
DPI = 150

SETTINGS: dict[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def line_style(index: int) -> dict[str, str]:
    """Return colour and dashes of the ``index``-th line: after seven colours the dashes change."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index // len(COLOURS) % len(DASHES)]}


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw in our style and write a PNG."""
    with mpl.rc_context(cast(Any, SETTINGS)):
        figure, data = draw(), io.BytesIO()
        figure.savefig(data, format="png", dpi=DPI)
    atomic_write_bytes(path, data.getvalue())


def note(axes: Axes, x: float, text: str, *, y: float = 0.98, align: str = "left") -> None:
    """Write a small text at ``x`` in data and ``y`` in the axes' height, from its top downwards."""
    axes.text(x, y, text, transform=axes.get_xaxis_transform(), ha=align, va="top", color=GREY, fontsize=10)
