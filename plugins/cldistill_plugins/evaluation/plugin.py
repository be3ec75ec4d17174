"""Evaluation, registered: its commands, and the observer that measures a run at its end; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import BuildContext, Command, Component, Needs, Settings, observer
from cldistill.markers import hookimpl
from cldistill_plugins.evaluation.api import END_OF_RUN


class EndOfRunSettings(Settings):
    """``evaluate`` has no options of its own: the manifest's ``evaluate:`` says what is measured."""


def describe_end_of_run(settings: EndOfRunSettings) -> Needs:
    """Needs nothing: what a metric needs, the metric says."""
    return Needs()


def build_end_of_run(settings: EndOfRunSettings, context: BuildContext) -> object:
    """Return the observer."""
    from cldistill_plugins.evaluation.end_of_run import EndOfRun

    return EndOfRun()


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """``evaluate``: measures every run whose manifest has an ``evaluate:``."""
    return [
        observer(
            END_OF_RUN,
            "measures a finished run on held-out pictures, where its manifest has an `evaluate:`",
            EndOfRunSettings,
            describe_end_of_run,
            build_end_of_run,
            automatic=True,
            serves="evaluate",
        )
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    """``eval``, ``report`` and ``study``."""
    module = "cldistill_plugins.evaluation"
    return [
        Command(
            "eval", "Compare systems on held-out pictures: figures, intervals, a page.", f"{module}.commands:evaluate"
        ),
        Command("report", "Write the page of an evaluation again, e.g. smaller.", f"{module}.commands:report"),
        Command("study", "Ask people, blindly, which system is best, and count.", f"{module}.study.command:study"),
    ]
