"""The command ``ui``, registered: nothing here imports gradio or torch."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``ui``."""
    return [
        Command(
            "ui",
            "Open a collection in the browser: drop a picture, choose effects, compare before and after, save.",
            "cldistill_plugins.ui.command:ui",
        )
    ]
