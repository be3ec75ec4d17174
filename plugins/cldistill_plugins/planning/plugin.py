"""The commands ``check`` and ``plan``, and the refusal of runs that do not fit, registered."""

from __future__ import annotations

from collections.abc import Sequence

from cldistill.component import Command
from cldistill.manifest.checked import RunRequest
from cldistill.markers import hookimpl


@hookimpl
def register_commands() -> Sequence[Command]:
    """``check``, ``plan``."""
    return [
        Command(
            "check",
            "Judge a manifest before anything is loaded; every mistake comes with its file and line.",
            "cldistill_plugins.planning.check:check",
        ),
        Command(
            "plan",
            "Say whether a run fits this device, how long it takes, and all that it will do; needs no data.",
            "cldistill_plugins.planning.command:plan",
        ),
    ]


@hookimpl
def run_asked(request: RunRequest) -> None:
    """Refuse a run that needs more memory than its device has, unless that is to be ignored."""
    if not request.ignore_memory:
        from cldistill_plugins.planning.fit import must_fit

        must_fit(request.checked, request.reference, request.overrides, "--ignore-memory")
