"""Drawing a `cldistill.display.statistics.View`: a rich panel for a terminal, one line of text for everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cldistill.display.statistics import LossView, View
from cldistill.progress.live import duration
from cldistill.records import GENERAL

BARS = "▁▂▃▄▅▆▇█"
PALETTE = (
    "cyan", "magenta", "yellow", "green", "bright_blue", "orange3", "bright_green", "orchid", "khaki3", "turquoise2"
)  # fmt: skip
WIDTH = 100
TREND_WIDTH = 24
NARROW = 72
MOST_POOLS = 8
NOT_FINITE = "not finite"
IDLE_STEPS = 25
"""A loss that has not counted for so long (its phase is over, or has not begun) is drawn dim."""


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values as a row of bars from their least to their greatest; more values than ``width`` are averaged."""
    if not values:
        return ""
    size = min(width, len(values))
    edges = [round(index * len(values) / size) for index in range(size + 1)]
    cells = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(cells), max(cells)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((cell - low) * scale)] for cell in cells)


def number(value: float | None) -> str:
    """Return a number in about four significant digits, the same width for usual sizes; a dash for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return NOT_FINITE
    return f"{value:.4f}" if 0.001 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def pace(seconds: float | None) -> str:
    """Return seconds a step in three significant digits."""
    return "–" if seconds is None else f"{seconds:.3g}"


def stream_text(view: View) -> str:
    """Name the stream and where its batch came from."""
    if not view.stream:
        return "starting"
    if len(view.pools) > 1:
        return f"{view.stream} · {len(view.pools)} pools mixed"
    pool = view.pools[0] if view.pools else ""
    return view.stream if pool in ("", view.stream) else f"{view.stream} · {pool}"


def plain_line(view: View, now: float) -> str:
    """Return one line for logs: what a pipe, a file or a CI job shows instead of the panel."""
    digits = len(str(view.total))
    losses = [f"{loss.name} {number(loss.smooth)}" for loss in view.losses if loss.idle < IDLE_STEPS]
    norms = [f"{slot} {number(value)}" for slot, value in view.grad_norms]
    parts = [
        f"step {view.step:>{digits}}/{view.total}",
        stream_text(view),
        *losses,
        f"grad {', '.join(norms)}" if norms else "",
        f"{pace(view.seconds_per_step)} s/step",
        f"{view.memory_mb:,.0f} MB",
        f"skipped {view.skipped}" if view.skipped else "",
        f"ETA {duration(view.eta(now))}",
    ]
    return " | ".join(part for part in parts if part)


def panel(view: View, title: str, subtitle: str, now: float, started: float, width: int) -> Panel:
    """Return the live panel; ``now`` and ``started`` are on the clock of the view."""
    width = min(width, WIDTH)
    parts: list[RenderableType] = [_progress(view, now, started, width), Text()]
    if view.losses:
        parts += [_losses(view, width), Text()]
    if view.recent:
        parts += [_streams(view, width), Text()]
    parts.append(_footer(view))
    return Panel(
        Group(*parts), title=title, subtitle=subtitle, title_align="left", subtitle_align="right",
        box=box.ROUNDED, border_style="cyan", padding=(1, 2), width=width,
    )  # fmt: skip


def _progress(view: View, now: float, started: float, width: int) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=view.total, completed=view.step, complete_style="cyan", finished_style="green")
    share = 100 * view.step / view.total if view.total else 100.0
    grid.add_row(bar, Text.assemble((f"{view.step:,}", "bold"), f" / {view.total:,}", (f"  {share:.0f} %", "cyan")))
    left = Text.assemble(("stream  ", "dim"), (stream_text(view), "bold"))
    eta = (duration(view.eta(now)), "bold")
    times = Text.assemble(("elapsed ", "dim"), duration(now - started), ("   ETA ", "dim"), eta)
    grid.add_row(left, times)
    return grid


def _losses(view: View, width: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("slot", "loss"):
        table.add_column(heading, no_wrap=True)
    for heading in ("now", "smoothed"):
        table.add_column(heading, justify="right", no_wrap=True)
    if width >= NARROW:
        table.add_column("trend", no_wrap=True, ratio=1)
    table.add_column("grad norm", justify="right", no_wrap=True)
    norms = dict(view.grad_norms)
    for slot in dict.fromkeys(loss.slot for loss in view.losses):
        for index, loss in enumerate(loss for loss in view.losses if loss.slot == slot):
            cells = _loss_cells(loss, trend=width >= NARROW)
            first = [Text(slot, style="bold"), Text(number(norms.get(slot)))] if index == 0 else [Text(), Text()]
            table.add_row(first[0], *cells, first[1], style="dim" if loss.idle >= IDLE_STEPS else "")
    return table


def _loss_cells(loss: LossView, trend: bool) -> list[Text]:
    now = number(loss.last)
    cells = [
        Text(loss.name),
        Text(now, style="bold red" if now == NOT_FINITE else ""),
        Text(number(loss.smooth), style="bold"),
    ]
    return [*cells, Text(sparkline(loss.trend, TREND_WIDTH), style="cyan")] if trend else cells


def _streams(view: View, width: int) -> RenderableType:
    """Draw the last steps as dots in the colour of their pool, and count the pools under them."""
    pools = [pool for pool, _ in view.counts if pool != GENERAL]
    colours = {pool: PALETTE[index % len(PALETTE)] for index, pool in enumerate(pools)}
    strip = Text()
    for pool, skipped in view.recent[-(width - 16) :]:
        strip.append("✗" if skipped else "▪", style="bold red" if skipped else colours.get(pool, "white"))
    shown = sorted(view.counts, key=lambda item: -item[1])
    counts = [
        Text.assemble((pool, colours.get(pool, "white")), f"\N{NO-BREAK SPACE}{count}")
        for pool, count in shown[:MOST_POOLS]
    ]
    if len(shown) > MOST_POOLS:
        counts.append(Text(f"and {len(shown) - MOST_POOLS} more", style="dim"))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(Text("recent", style="dim"), strip)
    grid.add_row(Text("seen", style="dim"), Text("   ").join(counts))
    return grid


def _footer(view: View) -> RenderableType:
    facts = [
        (pace(view.seconds_per_step), "s/step", "bold"),
        (str(view.forwards), "forwards", "bold"),
        (f"{view.memory_mb:,.0f}", "MB peak", "bold"),
        (str(view.skipped), "skipped", "bold red" if view.skipped else "bold"),
    ]
    line = Text()
    for value, unit, style in facts:
        line.append(value, style=style)
        line.append(f" {unit}   ", style="dim")
    line.append("last checkpoint ", style="dim")
    saved = (f"step {view.checkpoint:,}", "green") if view.checkpoint else ("none yet", "dim")
    return line.append(*saved)
