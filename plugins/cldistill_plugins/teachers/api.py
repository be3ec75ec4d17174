"""Public names of the plugin ``teachers``, for other built-in plugins and the examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cldistill_plugins.teachers.pairs import PairsJob, train_pairs

from cldistill_plugins.teachers.from_pairs import FromPairsSettings

__all__ = ["FROM_PAIRS", "FromPairsSettings", "PairsJob", "train_pairs"]

FROM_PAIRS = "from-pairs"
"""Teacher source that trains a LoRA on the effect's pairs; needs no option."""


def __getattr__(name: str) -> Any:
    """Import what trains only when it is asked for: it needs torch."""
    if name in ("PairsJob", "train_pairs"):
        from cldistill_plugins.teachers import pairs

        return getattr(pairs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
