"""The refusal to go on with another manifest's run, registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cldistill.markers import hookimpl

if TYPE_CHECKING:
    from cldistill.manifest.checked import RunRequest


@hookimpl
def run_asked(request: RunRequest) -> None:
    """Refuse to go on with a run whose manifest, plugins or number of processes were others, or with none."""
    if request.folder is not None:
        from cldistill_plugins.resuming.another import refuse_another

        wanted = request.wants_checkpoint
        refuse_another(request.checked, request.folder, wanted=wanted, may_change=request.may_change)
