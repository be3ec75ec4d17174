"""The command ``inspect``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``inspect``."""
    return [
        Command(
            "inspect",
            "Describe any adapter or collection by its header: format, rank, scale, effects, and how it fits a base.",
            "cldistill_plugins.inspection.inspect:inspect",
        )
    ]
