"""The observer that keeps what a run said: a mirror of its console, of warnings and of errors, each line with its time."""

from __future__ import annotations

import io
import logging
import os
import platform
import shlex
import sys
import traceback
import warnings
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control

from cldistill.markers import hookimpl
from cldistill.records import StepResult

if TYPE_CHECKING:
    from cldistill.training.run import ExportedRun, Run

FILE = "run.log"
WIDTH = 120
LINES = 100
"""Lines that the steps of a run take, where a live display leaves none of its own."""
LIBRARIES = ("cldistill", "torch", "diffusers", "transformers", "peft", "accelerate")


class Log(logging.Handler):
    """A file whose lines begin with the time; flushed after each, so that a killed run leaves all it said."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def say(self, text: str) -> None:
        """Write a text, its further lines indented under the first."""
        lines = [line.rstrip() for line in text.splitlines()]
        while lines and not lines[0]:
            lines.pop(0)
        if not lines or self._file.closed:
            return
        time = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        self._file.write(f"{time}  " + f"\n{' ' * (len(time) + 2)}".join(lines).rstrip() + "\n")
        self._file.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a library's warning, or an error that the command line prints."""
        self.say(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class Mirror(RenderHook):
    """Writes what a console prints, but not how a live display draws and redraws itself."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Write and pass on."""
        said = [renderable for renderable in renderables if not isinstance(renderable, Control)]
        if said:
            page = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False, emoji=False)
            page.print(*said, markup=False, highlight=False)
            self._log.say(page.file.getvalue())  # type: ignore[attr-defined]
        return renderables


class RunLog:
    """Observer: opens the log when it is built; what is printed after the last hook is in it, too, until another run begins."""

    _open: ClassVar[RunLog | None] = None
    """The one that listens, of several runs of one process."""

    def __init__(self, output: Path, console: Console | None) -> None:
        self._log: Log | None = None
        self._live = console is not None and console.is_terminal
        if int(os.environ.get("RANK", "0")) != 0:
            return
        if RunLog._open is not None:
            RunLog._open.detach()
        RunLog._open = self
        log = self._log = Log(output / FILE)
        log.say(f"{shlex.join(sys.argv)}\nin {Path.cwd()}\n{_versions()}")
        if console is not None:
            console.push_render_hook(Mirror(log))
        root = logging.getLogger()
        if not root.handlers:  # or the first handler, this one, would keep warnings off the screen
            root.addHandler(screen := logging.StreamHandler())
            screen.setLevel(logging.WARNING)
            screen.addFilter(lambda record: not record.name.startswith("cldistill"))
        root.addHandler(log)
        self._shown, warnings.showwarning = warnings.showwarning, self._warning  # type: ignore[assignment]
        self._crashed, sys.excepthook = sys.excepthook, self._crash

    def detach(self) -> None:
        """Listen no more, and close the file; a mirror that stays on its console finds it closed."""
        if self._log is not None:
            warnings.showwarning, sys.excepthook = self._shown, self._crashed
            logging.getLogger().removeHandler(self._log)
            self._log.close()
            self._log = None

    def _warning(self, message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if self._log is not None:
            self._log.say(f"warning: {filename}:{lineno}: {category.__name__}: {message}")
        self._shown(message, category, filename, lineno, *rest)

    def _crash(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self._log is not None:
            self._log.say("".join(traceback.format_exception(kind, error, trace)))
        self._crashed(kind, error, trace)

    @hookimpl
    def run_started(self, run: Run, start_step: int) -> None:
        """Say where the loop begins."""
        self._say(f"training begins after step {start_step} of {run.total_steps} on {run.accelerator.device}")

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Say the losses now and then, where the console does not."""
        every = max(1, run.total_steps // LINES)
        if self._live and (result.step % every == 0 or result.step == run.total_steps):
            losses = {name: value for update in result.updates for name, value in update.losses.items()}
            told = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
            self._say(f"step {result.step} of {run.total_steps}: {told}")

    @hookimpl
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """Say where it lies."""
        if self._live:
            self._say(f"checkpoint of step {step}: {path}")

    @hookimpl
    def run_finished(self, run: Run, step: int, stopped: bool) -> None:
        """Say how the loop ended."""
        self._say(f"training {'was stopped' if stopped else 'is done'} after step {step}")

    @hookimpl
    def run_exported(self, run: Run, exported: ExportedRun) -> None:
        """Say where the collection lies."""
        self._say(f"the collection is in {exported.collection}")

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Write the traceback, which the command line shows for errors of the program alone."""
        self._say("".join(traceback.format_exception(error)))

    def _say(self, text: str) -> None:
        if self._log is not None:
            self._log.say(text)


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
