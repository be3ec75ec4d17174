"""Public names of the plugin ``resuming``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.resuming.another import refuse_another

__all__ = ["refuse_another"]
