"""Public names of the plugin ``evaluation``, for other built-in plugins."""

from __future__ import annotations

from cldistill_plugins.evaluation.check import Entry
from cldistill_plugins.evaluation.execute import evaluate_manifest
from cldistill_plugins.evaluation.provenance import LIBRARIES, provenance

__all__ = ["LIBRARIES", "Entry", "evaluate_manifest", "provenance"]
