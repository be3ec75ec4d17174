"""Public names of the plugin ``resuming``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.resuming.another import refuse_another
from cldistill_plugins.resuming.stored import plain, read_stored

__all__ = ["plain", "read_stored", "refuse_another"]
