"""Instructions for unlabelled pictures, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``instructions``."""
    return [
        Command(
            "instructions",
            "Write general instructions for unlabelled pictures, by templates or a vision model.",
            "cldistill_plugins.instructions.command:instructions",
        )
    ]
