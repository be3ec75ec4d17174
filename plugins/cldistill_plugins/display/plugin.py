"""The live display, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, Settings, observer
from cldistill.markers import hookimpl


class DisplaySettings(Settings):
    """Options of ``display``."""

    every: int = Field(10, ge=1, description="steps between two plain lines where the console is no terminal")


def describe_display(settings: DisplaySettings) -> Needs:
    """Needs nothing."""
    return Needs()


def build_display(settings: DisplaySettings, context: BuildContext) -> object:
    """Return the display on the run's console."""
    from cldistill_plugins.display.display import Display

    return Display(context.console, settings.every)


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """``display``: a panel in a terminal, plain lines elsewhere."""
    return [
        observer(
            "display",
            "losses, streams, pace and memory of a run: a live panel in a terminal, plain lines elsewhere",
            DisplaySettings,
            describe_display,
            build_display,
            automatic=True,
        )
    ]
