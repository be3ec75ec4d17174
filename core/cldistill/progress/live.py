"""The preparation on screen: a bar for each stage under way, a line for each that is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from cldistill.progress.volume import is_quiet

PLAIN_SECONDS = 10.0
"""Seconds between the progress lines of a stage where there is no terminal."""


class LiveStages:
    """Implements `cldistill.progress.stages.Stages`; stages may be nested::

    with stages.stage("sampling targets", total=120) as advance:
        for chunk in work:
            ...
            advance(len(chunk))
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(highlight=False)
        self._clock = clock
        self._progress: Progress | None = None
        self._depth = 0

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a stage of ``total`` parts; the block gets a function to call with the number of parts just done."""
        if is_quiet():
            yield lambda parts: None
            return
        started = self._clock()
        done = 0
        said = started
        task = self._open(name, total)

        def advance(parts: int) -> None:
            nonlocal done, said
            done += parts
            if self._progress is not None and task is not None:
                self._progress.update(task, completed=done)
            elif self._clock() - said >= PLAIN_SECONDS:
                said = self._clock()
                self.console.print(f"{escape(name)}: {done}/{total}")

        try:
            yield advance
        except BaseException:
            self._close(task, f"[bold red]✗[/] {escape(name)}  [dim]stopped at {done} of {total}[/]")
            raise
        self._close(task, _done_text(name, done, total, self._clock() - started))

    def _open(self, name: str, total: int) -> TaskID | None:
        if not self.console.is_terminal:
            return None
        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(style="cyan"), TextColumn("{task.description}"), BarColumn(32, complete_style="cyan"),
                MofNCompleteColumn(), TimeRemainingColumn(compact=True), console=self.console, transient=True,
            )  # fmt: skip
            self._progress.start()
        self._depth += 1
        return self._progress.add_task("  " * (self._depth - 1) + escape(name), total=total)

    def _close(self, task: TaskID | None, text: str) -> None:
        if self._progress is not None and task is not None:
            self._depth -= 1
            self._progress.remove_task(task)
            if self._depth == 0:
                self._progress.stop()
                self._progress = None
        self.console.print(text)


def _done_text(name: str, done: int, total: int, seconds: float) -> str:
    if total > 0 and done == 0:
        note = "already there"
    else:
        count = f"{done:,}   " if total > 1 else ""
        note = f"{count}{duration(seconds)}" if seconds >= 10 else f"{count}{seconds:.1f} s"
    return f"[bold green]✓[/] {escape(name)}  [dim]{note}[/]"


def duration(seconds: float | None) -> str:
    """Return ``m:ss`` or ``h:mm:ss``; a dash for None."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
