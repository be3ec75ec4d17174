"""Draws from every part of their range: randomness with which a check meets what ordinary draws meet once in a thousand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cldistill.random import KeyedRandom

TURNS = 64
"""Parts of [0, 1): in as many turns every key has drawn from each of them."""
DEFAULT_RNG = np.random.default_rng
EDGE = 1e-4
"""Distance from 0 and from 1 of the draws of the first and of the last part."""


@cache
def _seeds() -> tuple[tuple[int, ...], ...]:
    """Return for each part of [0, 1) seeds whose first uniform number lies in it; at both ends the outermost one."""
    found: list[list[int]] = [[] for _ in range(TURNS)]
    firsts = {seed: float(torch.rand((), generator=torch.Generator().manual_seed(seed))) for seed in range(4096)}
    for seed, first in firsts.items():
        found[int(first * TURNS)].append(seed)
    found[0], found[-1] = [min(firsts, key=lambda s: firsts[s])], [max(firsts, key=lambda s: firsts[s])]
    return tuple(map(tuple, found))


@dataclass(frozen=True)
class ExtremeRandom(KeyedRandom):
    """Keyed randomness whose uniform draws come from another 64th of [0, 1) in each turn, the ends included."""

    turn: int = 0

    def _place(self, key: tuple[str | int, ...], per_rank: bool) -> tuple[int, int]:
        """Return the part that a key draws from in this turn, and a number by which to choose within it."""
        number = self._number(key, per_rank)
        phase = blake2b("\x1f".join(map(str, key)).encode(), digest_size=2).digest()
        return (self.turn + int.from_bytes(phase, "big")) % TURNS, number

    def generator(self, *key: str | int, per_rank: bool = False) -> torch.Generator:
        """Return a CPU generator whose first uniform number lies in the turn's part."""
        part, number = self._place(key, per_rank)
        seeds = _seeds()[part]
        return torch.Generator().manual_seed(seeds[number % len(seeds)])

    def uniform(self, *key: str | int, per_rank: bool = False) -> float:
        """Draw from the turn's part."""
        part, number = self._place(key, per_rank)
        within = (number >> 10) / float(1 << 53)
        return EDGE if part == 0 else 1 - EDGE if part == TURNS - 1 else (part + within) / TURNS

    def integer(self, high: int, *key: str | int, per_rank: bool = False) -> int:
        """Draw an integer from the turn's part of the range."""
        return int(self.uniform(*key, per_rank=per_rank) * high)

    def normal(self, shape: Any, *key: str | int, per_rank: bool = True) -> Tensor:
        """Draw noise as a run does."""
        plain = KeyedRandom(self.seed, self.rank, self.device, self.prefix)
        return plain.normal(shape, *key, self.turn, per_rank=per_rank)

    def child(self, *key: str | int) -> ExtremeRandom:
        """Return the same source with ``key`` before every further key."""
        return replace(self, prefix=(*self.prefix, *key))


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what torch draws inside, whoever's generator it comes from: a digest of each result, by its number of values;
    of numpy's generators the seeds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: dict[str, int] = {}
        self._patch = mock.patch.object(np.random, "default_rng", self._numpy)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note its result if it is a draw of real numbers."""
        out = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags and isinstance(out, Tensor) and out.is_floating_point():
            self.seen[blake2b(out.detach().cpu().double().numpy().tobytes()).hexdigest()] = out.numel()
        return out

    def _numpy(self, seed: Any = None) -> np.random.Generator:
        """Make a generator of numpy; one number, its seed, stands for all that it draws."""
        if seed is not None:
            self.seen[f"numpy, seed {seed!r}"] = 1
        return DEFAULT_RNG(seed)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._patch.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._patch.stop()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
