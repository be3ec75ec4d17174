"""Public names of the plugin ``samples``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.samples.grids import GridRow, labelled_grid, save_grid

__all__ = ["GridRow", "labelled_grid", "save_grid"]
