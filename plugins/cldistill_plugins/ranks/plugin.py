"""What several processes of one run need, registered."""

from __future__ import annotations

import sys

from cldistill.manifest.checked import RunRequest
from cldistill.markers import hookimpl


@hookimpl
def run_asked(request: RunRequest) -> None:
    """Refuse a launch whose other processes are missing, or that asks for a way to share that a run does not know."""
    from cldistill_plugins.ranks.launchers import refuse_missing_processes, refuse_sharding

    refuse_missing_processes(sys.argv[1:])
    refuse_sharding()
