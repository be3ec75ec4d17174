"""Several processes of one run: launches that are refused, and a base that is sharded, registered."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cldistill.manifest.checked import RunRequest
from cldistill.markers import hookimpl

if TYPE_CHECKING:
    from cldistill.training.run import Run


@hookimpl
def run_asked(request: RunRequest) -> None:
    """Refuse a launch whose other processes are missing, or that asks for a way to share that a run does not know."""
    from cldistill_plugins.ranks.launchers import refuse_missing_processes, refuse_sharding

    refuse_missing_processes(sys.argv[1:])
    refuse_sharding(request.checked.base.settings)


@hookimpl
def run_assembled(run: Run) -> None:
    """Shard the frozen base where the launcher is configured for FSDP and there is more than one rank."""
    from cldistill_plugins.ranks.launchers import refuse_sharding, wants_fsdp

    if wants_fsdp() and run.accelerator.num_processes > 1:
        from cldistill_plugins.ranks.shard import shard

        refuse_sharding(getattr(run.base, "settings", None))
        shard(run)
