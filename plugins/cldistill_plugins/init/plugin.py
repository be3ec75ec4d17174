"""The command ``init``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``init``."""
    return [
        Command(
            "init",
            "Write a manifest for your LoRAs and folders of pairs; --recipe copies one, --miniature trains in minutes.",
            "cldistill_plugins.init.command:init",
        )
    ]
