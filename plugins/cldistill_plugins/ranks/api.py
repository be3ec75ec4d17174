"""Public names of the plugin ``ranks``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.ranks.launchers import refuse_missing_processes, refuse_uncut, wants_fsdp

__all__ = ["refuse_missing_processes", "refuse_uncut", "wants_fsdp"]
