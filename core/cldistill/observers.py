"""Calls the observers of a run: on the main process only, and an observer that fails is reported, never fatal."""

from __future__ import annotations

import sys
from pathlib import Path

import pluggy

from cldistill.hookspecs import RunHooks
from cldistill.markers import PROJECT
from cldistill.records import StepResult
from cldistill.run import Run


class Observers:
    """The run's observers behind `cldistill.hookspecs.RunHooks`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plugins: list[tuple[str, pluggy.PluginManager]] = []
        if run.is_main:
            for observer in run.observers:
                manager = pluggy.PluginManager(PROJECT)
                manager.add_hookspecs(RunHooks)
                manager.register(observer)
                self._plugins.append((type(observer).__name__, manager))

    def _call(self, hook: str, **arguments: object) -> None:
        for name, manager in list(self._plugins):
            try:
                getattr(manager.hook, hook)(run=self._run, **arguments)
            except Exception as error:  # a tracker that is down must not cost a night of training
                self.warn(f"observer {name} failed in {hook} and is switched off: {type(error).__name__}: {error}")
                self._plugins.remove((name, manager))

    def run_started(self, start_step: int) -> None:
        """Tell all observers."""
        self._call("run_started", start_step=start_step)

    def step_finished(self, result: StepResult) -> None:
        """Tell all observers."""
        self._call("step_finished", result=result)

    def checkpoint_saved(self, step: int, path: Path) -> None:
        """Tell all observers."""
        self._call("checkpoint_saved", step=step, path=path)

    def run_finished(self, step: int, stopped: bool) -> None:
        """Tell all observers."""
        self._call("run_finished", step=step, stopped=stopped)

    def run_failed(self, error: BaseException) -> None:
        """Tell all observers."""
        self._call("run_failed", error=error)

    def warn(self, text: str) -> None:
        """Say something that a person should see, on standard error."""
        if self._run.is_main:
            print(f"warning: {text}", file=sys.stderr)
