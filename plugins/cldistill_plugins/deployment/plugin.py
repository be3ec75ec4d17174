"""Splitting a bank, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``group``."""
    return [
        Command(
            "group",
            "Split a bank into several collections of effects that interfere least.",
            "cldistill_plugins.deployment.command:group",
        )
    ]
