"""Frozen adapter weights in memory: what a teacher source returns and a slot mounts.  No torch is imported at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from cldistill.schedule import Schedule


@dataclass(frozen=True)
class LoraWeights:
    """``delta = (alpha / rank) * up @ down``."""

    down: Tensor
    """``[rank, in_features]``"""
    up: Tensor
    """``[out_features, rank]``"""
    alpha: float

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return int(self.down.shape[0])

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return int(self.up.shape[0]), int(self.down.shape[1])


@dataclass(frozen=True)
class LokrWeights:
    """``delta = scale * kron(w1, w2)`` (arXiv 2309.14859)."""

    w1: Tensor
    """``[out_1, in_1]``"""
    w2: Tensor
    """``[out_2, in_2]``, where ``out_1 * out_2`` and ``in_1 * in_2`` are the module's features."""
    scale: float

    @property
    def rank(self) -> int:
        """A bound of the inner dimension of ``w2``, as for a LoRA of that factor."""
        return int(min(self.w2.shape))

    @property
    def shape(self) -> tuple[int, int]:
        """``(out_features, in_features)``."""
        return self.w1.shape[0] * self.w2.shape[0], self.w1.shape[1] * self.w2.shape[1]


@dataclass(frozen=True)
class AdapterState:
    """A frozen adapter in memory: weights under the backbone's full module names."""

    modules: Mapping[str, LoraWeights | LokrWeights]
    source: str
    """Its origin, for messages."""
    digest: str
    """Identity: the same digest means the same weights and scale."""
    few_step: Schedule | None = None
    """The sampler that was distilled into the adapter, and with it the guidance: so it is sampled, and never guided.
    None for an ordinary teacher."""

    def scaled(self, factor: float) -> AdapterState:
        """Return the adapter at ``factor`` times its strength."""
        if factor == 1.0:
            return self
        modules: dict[str, LoraWeights | LokrWeights] = {}
        for name, weights in self.modules.items():
            if isinstance(weights, LoraWeights):
                modules[name] = replace(weights, alpha=weights.alpha * factor)
            else:
                modules[name] = replace(weights, scale=weights.scale * factor)
        return replace(self, modules=modules, digest=f"{self.digest}*{factor!r}")
