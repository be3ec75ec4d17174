"""Keyed randomness: every draw is a pure function of its key, so a resumed run draws what the unbroken one would have.

Under several processes all must make the same number of forwards: stream, effect and rollout depth come from keys that
every rank shares; noise and the choice of items have the rank in their key, or the item's place in the global batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a router draws its routes without torch, and so can another process
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class KeyedRandom:
    """Implements `cldistill.protocols.Keyed`.  Draws are made on the CPU, so they do not depend on the device."""

    seed: int
    rank: int = 0
    device: str = "cpu"
    prefix: tuple[str | int, ...] = ()
    places: tuple[int, ...] = ()
    """Of the items that this process draws for, among those of all ranks: each then draws as the rank of that number would."""

    def _number(self, key: Sequence[str | int], per_rank: bool) -> int:
        parts = (self.seed, *self.prefix, *key, *(("rank", self.rank) if per_rank else ()))
        text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def generator(self, *key: str | int, per_rank: bool = False) -> torch.Generator:
        """Return a CPU generator seeded from the key."""
        import torch

        return torch.Generator().manual_seed(self._number(key, per_rank))

    def uniform(self, *key: str | int, per_rank: bool = False) -> float:
        """Draw one number in [0, 1) (53 random bits, straight from the hash)."""
        return (self._number(key, per_rank) >> 10) / float(1 << 53)

    def integer(self, high: int, *key: str | int, per_rank: bool = False) -> int:
        """Draw one integer in [0, high); the bias of the modulus is below ``high / 2**63``."""
        if high < 1:
            raise ValueError(f"integer() needs high >= 1, got {high}")
        return self._number(key, per_rank) % high

    def normal(self, shape: Sequence[int], *key: str | int, per_rank: bool = True) -> Tensor:
        """Draw standard normal noise of ``shape`` in fp32 and move it to the device."""
        import torch

        if per_rank and 1 < len(self.places) == shape[0]:
            return torch.cat([self.of(place).normal((1, *shape[1:]), *key) for place in self.places])
        noise = torch.randn(tuple(shape), generator=self.generator(*key, per_rank=per_rank), dtype=torch.float32)
        cuda = self.device.startswith("cuda")  # from pageable memory the host would wait for the copy
        return (noise.pin_memory() if cuda else noise).to(self.device, non_blocking=cuda)

    def uniforms(self, size: int, *key: str | int) -> Tensor:
        """Draw one number in [0, 1) for each of ``size`` items and move them to the device: ``[size]`` in fp32."""
        import torch

        if 1 < len(self.places) == size:
            return torch.cat([self.of(place).uniforms(1, *key) for place in self.places])
        return torch.rand(size, generator=self.generator(*key, per_rank=True)).to(self.device)

    def child(self, *key: str | int) -> KeyedRandom:
        """Return the same source with ``key`` before every further key."""
        return replace(self, prefix=(*self.prefix, *key))

    def of(self, *places: int) -> KeyedRandom:
        """Return the same source for the items at ``places`` of the global batch."""
        return replace(self, rank=places[0], places=places)

    def items(self, size: int) -> list[KeyedRandom]:
        """Return the source of the item whose geometry a batch has, and of each of its ``size`` items."""
        if self.places:
            return [self.of(place).child("item", 0) for place in (0, *self.places)]
        own = [self.child("item", index) for index in range(size)]
        return [own[0], *own]
