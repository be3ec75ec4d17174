"""The commands ``generate`` and ``inspect``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``generate`` and ``inspect``."""
    return [
        Command(
            "generate",
            "Edit pictures or whole folders with the effects of a collection, and lay them out on a contact sheet.",
            "cldistill_plugins.using.generate:generate",
        ),
        Command(
            "inspect",
            "Describe any adapter or collection by its header: format, rank, scale, effects, and how it fits a base.",
            "cldistill_plugins.using.inspect:inspect",
        ),
    ]
