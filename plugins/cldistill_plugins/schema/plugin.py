"""The commands ``schema`` and ``plugins``, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``schema`` and ``plugins``."""
    return [
        Command(
            "schema",
            "Print the manifest's JSON schema for editors, with the options of every installed component.",
            "cldistill_plugins.schema.command:schema",
        ),
        Command(
            "plugins",
            "List every plugin and component with its settings, and every plugin that failed, with the cause.",
            "cldistill_plugins.schema.installed:plugins",
        ),
    ]
