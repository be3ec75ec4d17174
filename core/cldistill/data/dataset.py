"""Encoded examples, drawn into batches.

Everything a batch needs was computed once and lies in the cache (`cldistill.prepare`); a draw reads it back.  Which items
make a batch is a function of the key alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cldistill.protocols import BaseModel, Keyed
from cldistill.records import GENERAL, Batch, Conditioning, Item, Route, Share, Tensors


@dataclass(frozen=True)
class Example:
    """One item with the keys of its encodings; the tensors stay in the cache until a batch wants them."""

    item: Item
    shape: tuple[int, ...]
    """Shape of its latent."""
    batch_key: tuple[int, ...]
    """Geometry of the latent and of all references: only examples of one key share a batch."""
    source: Callable[[], Tensors]
    student: Callable[[], Tensors]
    teacher: Callable[[], Tensors]
    unconditional: Callable[[], Tensors]
    target: Callable[[], Tensor] | None = None


class Dataset:
    """Examples by pool (an effect's name, or ``general``)."""

    def __init__(self, base: BaseModel, pools: Mapping[str, Sequence[Example]]) -> None:
        self.base = base
        self.pools = {name: tuple(examples) for name, examples in pools.items()}

    def draw(self, route: Route, random: Keyed, size: int) -> Batch:
        """Draw ``size`` examples of one batch key from the route's pools, with the rank or the item's place in the key."""
        names = sorted(route.pools)
        weights = [route.pools[name] for name in names]
        leader, *own = random.items(size)
        first = self._pick(names, weights, leader)
        chosen = [first if one == leader else self._pick(names, weights, one, first.batch_key) for one in own]
        return self.collate(route, chosen, str(getattr(random, "device", "cpu")))

    def _pick(
        self, names: Sequence[str], weights: Sequence[float], random: Keyed, key: tuple[int, ...] | None = None
    ) -> Example:
        point = random.uniform("pool", per_rank=True) * sum(weights)
        pool = names[-1]
        for name, weight in zip(names, weights, strict=True):
            point -= weight
            if point < 0:
                pool = name
                break
        candidates = self._fitting(pool, names, key)
        return candidates[random.integer(len(candidates), "example", per_rank=True)]

    def _fitting(self, pool: str, names: Sequence[str], key: tuple[int, ...] | None) -> Sequence[Example]:
        """Examples of a pool with the batch key; those of all the route's pools where it has none (a mixed batch)."""
        if key is None:
            return self.pools[pool]
        fitting = [example for example in self.pools[pool] if example.batch_key == key]
        return fitting or [example for name in names for example in self.pools[name] if example.batch_key == key]

    def collate(self, route: Route, examples: Sequence[Example], device: str = "cpu") -> Batch:
        """Stack examples of one batch key into a batch on ``device``."""
        source = on_device(self.base.collate([example.source() for example in examples]), device)

        def conditioning(rows: Sequence[Tensors]) -> Conditioning:
            return Conditioning(source, on_device(self.base.collate(rows), device))

        targets = [example.target() for example in examples if example.target is not None]
        return Batch(
            route=route,
            items=tuple(example.item for example in examples),
            student=conditioning([example.student() for example in examples]),
            teacher=conditioning([example.teacher() for example in examples]),
            unconditional=conditioning([example.unconditional() for example in examples]),
            target=torch.stack(targets).float().to(device) if len(targets) == len(examples) else None,
            latent_shape=examples[0].shape,
            shares=shares_of([example.item.pool for example in examples]),
        )


def shares_of(pools: Sequence[str], count: int = 0) -> tuple[Share, ...]:
    """Group the items of a batch, given by their pools, by teacher: in at least ``count`` shares, if there are items enough.

    A share that is cut in two costs one call of its teacher more and no computation.
    """
    rows: dict[str, list[int]] = {}
    for row, pool in enumerate(pools):
        rows.setdefault(pool, []).append(row)
    found = [Share(None if pool == GENERAL else pool, tuple(own)) for pool, own in rows.items()]
    while len(found) < min(count, len(pools)):
        largest = max(found, key=lambda share: len(share.rows))
        found.remove(largest)
        middle = len(largest.rows) // 2
        found += [Share(largest.effect, rows) for rows in (largest.rows[:middle], largest.rows[middle:])]
    return tuple(found)


def on_device(tensors: Tensors, device: str | torch.device) -> dict[str, Tensor]:
    """Return collated tensors on a device."""
    return {name: value.to(device) for name, value in tensors.items()}
