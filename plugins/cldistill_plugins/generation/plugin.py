"""The command ``generate``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``generate``."""
    return [
        Command(
            "generate",
            "Edit pictures or whole folders with the effects of a collection, and lay them out on a contact sheet.",
            "cldistill_plugins.generation.generate:generate",
        ),
    ]
