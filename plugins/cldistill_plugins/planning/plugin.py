"""The command ``plan``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``plan``."""
    return [
        Command(
            "plan",
            "Say whether a run fits this device, how long it takes, and all that it will do; needs no data.",
            "cldistill_plugins.planning.command:plan",
        )
    ]
