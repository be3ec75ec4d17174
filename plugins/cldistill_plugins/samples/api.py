"""Public names of the plugin ``samples``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.samples.grids import GridRow, labelled_grid, save_grid, without_empty
from cldistill_plugins.samples.truths import true_output

__all__ = ["GridRow", "labelled_grid", "save_grid", "true_output", "without_empty"]
