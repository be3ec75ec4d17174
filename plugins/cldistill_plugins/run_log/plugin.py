"""The observer ``run-log``, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import BuildContext, Component, Needs, Settings, observer
from cldistill.markers import hookimpl


class RunLogSettings(Settings):
    """``run-log`` has no options."""


def describe_run_log(settings: RunLogSettings) -> Needs:
    """Needs nothing."""
    return Needs()


def build_run_log(settings: RunLogSettings, context: BuildContext) -> object:
    """Return the observer; it begins to write at once, so that the preparation is in the log."""
    from cldistill_plugins.run_log.run_log import RunLog

    return RunLog(context.output, context.console)


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """``run-log``: every run has it."""
    return [
        observer(
            "run-log", "writes what the run says, warnings and errors to run.log in its folder", RunLogSettings,
            describe_run_log, build_run_log, automatic=True,
        )
    ]  # fmt: skip
