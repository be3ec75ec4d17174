"""The command ``convert``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``convert``."""
    return [
        Command(
            "convert",
            "Make the nearest plain LoRA of an adapter that is not mounted as it is, and say how near it is.",
            "cldistill_plugins.converting.command:convert",
        )
    ]
