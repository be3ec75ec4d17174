"""The names of this plugin that others may use."""

from __future__ import annotations

from cldistill_plugins.schema.words import read_settings

__all__ = ["read_settings"]
