"""Public names of the plugin ``data``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.data.described import TEACHER, described, name_of

__all__ = ["TEACHER", "described", "name_of"]
