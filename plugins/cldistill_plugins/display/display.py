"""The live display of a run: an observer that draws a panel in a terminal and prints plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel

from cldistill.markers import hookimpl
from cldistill.progress.live import duration
from cldistill.records import StepResult
from cldistill_plugins.display.panel import panel, plain_line
from cldistill_plugins.display.statistics import Statistics

if TYPE_CHECKING:
    from cldistill.training.run import Run


class Display:
    """Observer. ``every``: steps between two plain lines where the console is no terminal (first and last always).

    The panel is redrawn by rich's own thread, so that the clock runs during a long step.  That thread only ever reads
    one snapshot, which nothing changes: no lock is held that a signal handler, printing in the main thread, could wait for.
    """

    def __init__(
        self, console: Console | None = None, every: int = 10, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console or Console(highlight=False)
        self.every = every
        self._clock = clock
        self._statistics = self._shown = Statistics(0, 0, clock)
        self._started = 0.0
        self._title = ""
        self._subtitle = ""
        self._live: Live | None = None

    @hookimpl
    def run_started(self, run: Run, start_step: int) -> None:
        """Open the panel, or print where the run stands."""
        self._statistics = Statistics(run.total_steps, start_step, self._clock)
        self._shown = self._statistics.snapshot()
        self._started = self._clock()
        self._title = f"[bold]cldistill[/] · {escape(run.name)}"
        self._subtitle = f"[dim]{escape(_short(run.output))}[/]"
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4)
            self._live.start()
        else:
            how = f"resumed at step {start_step}" if start_step else "started"
            text = f"{run.name}: {how}, {run.total_steps} steps, output {_short(run.output)}"
            self.console.print(text, markup=False)

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Take the numbers; in plain mode print them now and then."""
        first = not self._statistics.losses
        self._statistics.add(result)
        self._shown = self._statistics.snapshot()
        if self._live is None and (first or result.step % self.every == 0 or result.step == run.total_steps):
            self.console.print(plain_line(self._shown, self._clock()), markup=False, soft_wrap=True)

    @hookimpl
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """Show the last checkpoint."""
        self._statistics.checkpoint = step
        self._shown = self._statistics.snapshot()
        if self._live is None:
            self.console.print(f"checkpoint of step {step}: {_short(path)}", markup=False, soft_wrap=True)

    @hookimpl
    def run_finished(self, run: Run, step: int, stopped: bool) -> None:
        """Leave the last panel on the screen, with how it ended in its title."""
        how = "[yellow]stopped, everything saved[/]" if stopped else "[green]done[/]"
        self._end(how, f"{'stopped' if stopped else 'done'} at step {step} after {duration(self._gone())}")

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Leave the last panel on the screen; the error itself is the command line's to tell."""
        name = type(error).__name__
        self._end(f"[bold red]{name}[/]", f"{name} at step {self._shown.step} after {duration(self._gone())}")

    def _end(self, title: str, line: str) -> None:
        if self._live is None:
            self.console.print(line, markup=False)
            return
        self._title += f" · {title}"
        live, self._live = self._live, None
        live.stop()

    def _gone(self) -> float:
        return self._clock() - self._started

    def _draw(self) -> Panel:
        return panel(self._shown, self._title, self._subtitle, self._clock(), self._started, self.console.width)


def _short(path: Path) -> str:
    """Return the path as short as it is still right: relative to here if it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
