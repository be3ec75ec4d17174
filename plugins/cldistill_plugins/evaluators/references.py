"""The pairs of an effect that an evaluator looks at: always the same ones, drawn by the hash of their names."""

from __future__ import annotations

import hashlib

from cldistill.data import pairs_of
from cldistill.records import EffectInfo, Item


def reference_pairs(effect: EffectInfo, count: int) -> list[Item]:
    """Return up to ``count`` before/after pairs of an effect; none where it has no pairs."""
    if effect.pairs is None:
        return []
    items = [item for item in pairs_of(effect) if item.target is not None]
    return sorted(items, key=lambda item: hashlib.sha256(item.key.encode()).digest())[:count]
