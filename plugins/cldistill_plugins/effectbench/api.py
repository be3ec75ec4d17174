"""Public names of the plugin ``effectbench``, for other built-in plugins and the examples."""

from __future__ import annotations

from cldistill_plugins.effectbench.bank import SIX, bank_of

__all__ = ["SIX", "bank_of"]
