"""Exported collections: writing, reading, inspecting them, and generating with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cldistill.collection.collection import Collection

__all__ = ["Collection"]


def __getattr__(name: str) -> Any:
    """Import `Collection` when it is asked for: it needs torch, and reading a collection's index does not."""
    if name == "Collection":
        from cldistill.collection.collection import Collection

        return Collection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
