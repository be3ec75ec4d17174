"""Hashes of what a metric sees beside the systems' pictures: pools, effects and the base, worked out once an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cldistill.data.items import pairs_of
from cldistill.errors import DataError
from cldistill.records import EffectInfo, Item
from cldistill.storage.files import file_digest
from cldistill.storage.tensors import content_key
from cldistill_plugins.evaluation.request import EvaluationRequest


class Fingerprints:
    """Of one request's items and effects."""

    def __init__(self, request: EvaluationRequest) -> None:
        self._pools = {pool: content_key(pool, *self._items(items)) for pool, items in request.items.items()}
        self._effects = {effect.name: self._effect(request, effect) for effect in request.effects}
        self._all = content_key(request.base_digest, *self._effects.values())
        self._none = content_key(request.base_digest)

    def pool(self, pool: str) -> str:
        """Return the hash of a pool's items: pictures, prompts, and true results where they are known."""
        return self._pools[pool]

    def effects(self, only: str | None = None) -> str:
        """Return the hash of all effects in their order, or of one (of none for the general pool)."""
        return self._all if only is None else self._effects.get(only, self._none)

    def everything(self, request: EvaluationRequest) -> str:
        """Return the hash of a whole request: effects, items, and all pictures of all systems."""
        made = [
            part
            for system, pools in request.outputs.items()
            for pool, pictures in pools.items()
            for part in (system, pool, *pictures.digests)
        ]
        return content_key(self._all, str(request.reference), *self._pools.values(), *made)

    @staticmethod
    def _items(items: Sequence[Item]) -> Iterator[str]:
        for item in items:
            files = [*item.sources, *([item.target] if item.target is not None else [])]
            yield from (item.key, item.prompt, *(file_digest(file) for file in files))

    @staticmethod
    def _effect(request: EvaluationRequest, effect: EffectInfo) -> str:
        """An effect by its name, prompts and pairs: a judge is shown one of those."""
        prompts = request.prompts[effect.name]
        told = (prompts.student, prompts.teacher, prompts.trigger)
        return content_key(request.base_digest, effect.name, effect.prompt, *told, *_pairs(effect))


def _pairs(effect: EffectInfo) -> Iterator[str]:
    """Name and size of every picture of the effect's pairs: hashing 180 x 20 pairs would cost more than it tells."""
    if effect.pairs is None:
        return
    try:
        items = pairs_of(effect)
    except DataError:
        return
    for item in items:
        files = [*item.sources, *([item.target] if item.target is not None else [])]
        yield from (f"{file.name} {file.stat().st_size}" for file in files)
