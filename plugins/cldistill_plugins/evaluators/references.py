"""The pairs of an effect that an evaluator looks at: always the same ones, drawn by the hash of their names."""

from __future__ import annotations

from cldistill.data.items import drawn_by_name, pairs_of
from cldistill.records import EffectInfo, Item


def reference_pairs(effect: EffectInfo, count: int) -> list[Item]:
    """Return up to ``count`` before/after pairs of an effect; none where it has no pairs."""
    if effect.pairs is None:
        return []
    return drawn_by_name((item for item in pairs_of(effect) if item.target is not None), count)
