"""The end of an evaluation in a terminal: its tables, and one sentence that says what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from cldistill_plugins.evaluation.report.figures import ARROWS, NOTHING, ends_of, number, text_of
from cldistill_plugins.evaluation.report.record import Evaluation, IntervalEntry, MetricRow

GAP = 2
"""Blanks between two columns of a table."""


def verdict(report: Evaluation) -> str:
    """Return a sentence: which system is first by the first metric, with its interval, and how far the next one is behind."""
    for name, metric in report.metrics.items():
        means = {
            system.label: entry
            for system in report.systems
            if (entry := report.summary.get(system.name, {}).get(name)) is not None and entry.mean is not None
        }
        if metric.better is None or not means:
            continue
        order = sorted(means, key=lambda label: means[label].mean or 0.0, reverse=metric.better == "higher")
        told = {label: number(means[label].mean, metric.percent) for label in order}
        equal = [list(group) for _, group in groupby(order, told.__getitem__)]
        shown = [" and ".join(f"{label} with {text_of(means[label], metric)}" for label in group) for group in equal]
        first = f"first come{'s' if len(equal[0]) == 1 else ''} {shown[0]}"
        rest = f"; then {shown[1]}" if len(shown) > 1 else ""
        more = f"; last {shown[-1]}" if len(shown) > 2 else ""
        return f"By {metric.title}, {first}{rest}{more} ({len(report.pictures)} pictures an effect)."
    if report.metrics:
        return "Nothing of what was measured says which system is better."
    why = (
        "no metric could measure"
        if report.not_measured
        else "evaluate.metrics names none, `{use: likeness}` needs nothing"
    )
    return f"Nothing was measured: {why}; the pictures are there."


def summary_tables(report: Evaluation, width: int) -> Iterator[Table]:
    """Yield the tables that a run ends with, on a terminal of ``width``: metrics by system, then the student's effects."""
    table = _table("Held-out pictures: means and 95 % intervals", "")
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    for name, metric in report.metrics.items():
        table.add_row(escape(_title(metric)))
        for system in report.systems:
            found = report.summary.get(system.name, {}).get(name)
            if found is not None:
                mean, ends = _cells(found, metric)
                table.add_row(f"  {escape(system.label)}, {system.evaluations} evaluations", mean, ends)
    yield table
    student = report.systems[-1]
    effects = report.per_effect.get(student.name, {})
    known = {name for found in effects.values() for name in found}
    shown = {name: metric for name, metric in report.metrics.items() if name in known and metric.better is not None}
    columns = {_title(m): [_cells(found.get(name), m) for found in effects.values()] for name, m in shown.items()}
    yield from _by_effect(f"{student.label}, effect by effect", list(effects), columns, width)


def _by_effect(
    title: str, names: Sequence[str], columns: Mapping[str, Sequence[tuple[str, str]]], width: int
) -> Iterator[Table]:
    """Yield a table of ``columns``, or several below each other where they would not fit beside each other."""
    first = max(map(cell_len, ("effect", *names)))
    room, blocks = 0, list[list[tuple[str, int]]]()
    for head, cells in columns.items():
        wide = max(map(cell_len, (*head.split(), *(line for cell in cells for line in cell))))
        room -= GAP + wide
        if not blocks or room < 0:
            blocks.append([])
            room = width - 2 - first - GAP - wide
        blocks[-1].append((head, wide))
    for block in blocks:
        table = _table(title, "effect")
        for head, wide in block:
            table.add_column(escape(head), justify="right", width=wide)
        for place, name in enumerate(names):
            table.add_row(escape(name), *("\n".join(columns[head][place]).rstrip() for head, _ in block))
        yield table


def _table(title: str, first: str) -> Table:
    return Table(
        first, title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _title(metric: MetricRow) -> str:
    return f"{metric.title}{ARROWS[metric.better]}"


def _cells(found: IntervalEntry | None, metric: MetricRow) -> tuple[str, str]:
    """Return a mean, and its interval."""
    if found is None or found.mean is None:
        return NOTHING, ""
    return number(found.mean, metric.percent), ends_of(found, metric.percent)
