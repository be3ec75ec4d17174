"""The drawing of `cldistill_plugins.display.statistics`: a rich panel for a terminal, one line of text for everything else."""

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

from cldistill.progress.live import duration
from cldistill.records import GENERAL
from cldistill_plugins.display.statistics import LossStatistics, Statistics

BARS = "▁▂▃▄▅▆▇█"
PALETTE = (
    "cyan", "magenta", "yellow", "green", "bright_blue", "orange3", "bright_green", "orchid", "khaki3", "turquoise2"
)  # fmt: skip
WIDTH = 100
TREND_WIDTH = 24
NARROW = 72
MOST_POOLS = 8
NOT_FINITE = "not finite"


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


def stream_text(stats: Statistics) -> str:
    """Name the stream and where its batch came from."""
    if not stats.stream:
        return "starting"
    if len(stats.pools) > 1:
        return f"{stats.stream} · {len(stats.pools)} pools mixed"
    pool = stats.pools[0] if stats.pools else ""
    return stats.stream if pool in ("", stats.stream) else f"{stats.stream} · {pool}"


def plain_line(stats: Statistics, now: float) -> str:
    """Return one line for logs: what a pipe, a file or a CI job shows instead of the panel."""
    digits = len(str(stats.total))
    losses = [f"{name} {number(loss.smooth.value)}" for (_, name), loss in stats.losses.items() if not stats.idle(loss)]
    norms = [f"{slot} {number(norm.value)}" for slot, norm in stats.grad_norms.items()]
    parts = [
        f"step {stats.step:>{digits}}/{stats.total}",
        stream_text(stats),
        *losses,
        f"grad {', '.join(norms)}" if norms else "",
        f"{pace(stats.seconds_per_step.value)} s/step",
        f"{stats.memory_mb:,.0f} MB",
        f"skipped {stats.skipped}" if stats.skipped else "",
        f"ETA {duration(stats.eta(now))}",
    ]
    return " | ".join(part for part in parts if part)


def panel(stats: Statistics, title: str, subtitle: str, now: float, started: float, width: int) -> Panel:
    """Return the live panel; ``now`` and ``started`` are on the clock of the stats."""
    width = min(width, WIDTH)
    parts: list[RenderableType] = [_progress(stats, now, started, width), Text()]
    if stats.losses:
        parts += [_losses(stats, width), Text()]
    if stats.recent:
        parts += [_streams(stats, width), Text()]
    parts.append(_footer(stats))
    return Panel(
        Group(*parts), title=title, subtitle=subtitle, title_align="left", subtitle_align="right",
        box=box.ROUNDED, border_style="cyan", padding=(1, 2), width=width,
    )  # fmt: skip


def _progress(stats: Statistics, now: float, started: float, width: int) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=stats.total, completed=stats.step, complete_style="cyan", finished_style="green")
    share = 100 * stats.step / stats.total if stats.total else 100.0
    grid.add_row(bar, Text.assemble((f"{stats.step:,}", "bold"), f" / {stats.total:,}", (f"  {share:.0f} %", "cyan")))
    left = Text.assemble(("stream  ", "dim"), (stream_text(stats), "bold"))
    eta = (duration(stats.eta(now)), "bold")
    times = Text.assemble(("elapsed ", "dim"), duration(now - started), ("   ETA ", "dim"), eta)
    grid.add_row(left, times)
    return grid


def _losses(stats: Statistics, width: int) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("slot", "loss"):
        table.add_column(heading, no_wrap=True)
    for heading in ("now", "smoothed"):
        table.add_column(heading, justify="right", no_wrap=True)
    if width >= NARROW:
        table.add_column("trend", no_wrap=True, ratio=1)
    table.add_column("grad norm", justify="right", no_wrap=True)
    for slot, norm in stats.grad_norms.items():
        first = [Text(slot, style="bold"), Text(number(norm.value))]
        for (owner, name), loss in stats.losses.items():
            if owner == slot:
                cells = _loss_cells(name, loss, trend=width >= NARROW)
                table.add_row(first[0], *cells, first[1], style="dim" if stats.idle(loss) else "")
                first = [Text(), Text()]
    return table


def _loss_cells(name: str, loss: LossStatistics, trend: bool) -> list[Text]:
    now = number(loss.last)
    cells = [
        Text(name),
        Text(now, style="bold red" if now == NOT_FINITE else ""),
        Text(number(loss.smooth.value), style="bold"),
    ]
    return [*cells, Text(sparkline(loss.trend.values, TREND_WIDTH), style="cyan")] if trend else cells


def _streams(stats: Statistics, width: int) -> RenderableType:
    """Draw the last steps as dots in the colour of their pool, and count the pools under them."""
    pools = [pool for pool in stats.counts if pool != GENERAL]
    colours = {pool: PALETTE[index % len(PALETTE)] for index, pool in enumerate(pools)}
    strip = Text()
    for pool, skipped in list(stats.recent)[-(width - 16) :]:
        strip.append("✗" if skipped else "▪", style="bold red" if skipped else colours.get(pool, "white"))
    shown = stats.counts.most_common()
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


def _footer(stats: Statistics) -> RenderableType:
    facts = [
        (pace(stats.seconds_per_step.value), "s/step", "bold"),
        (str(stats.forwards), "forwards", "bold"),
        (f"{stats.memory_mb:,.0f}", "MB peak", "bold"),
        (str(stats.skipped), "skipped", "bold red" if stats.skipped else "bold"),
    ]
    line = Text()
    for value, unit, style in facts:
        line.append(value, style=style)
        line.append(f" {unit}   ", style="dim")
    line.append("last checkpoint ", style="dim")
    saved = (f"step {stats.checkpoint:,}", "green") if stats.checkpoint else ("none yet", "dim")
    return line.append(*saved)
