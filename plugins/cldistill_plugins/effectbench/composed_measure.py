"""Compositions measured: every output against the truths of its two effects, together, alone and in the other order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from cldistill.data.items import open_picture
from cldistill_plugins.evaluation.api import Composed, Pair, resample

from .bank import Picture, truth_draws
from .composed_truth import CompositionScores, composed_draws, judge
from .metrics.hed_vgg_lpips import HedVggLpips

if TYPE_CHECKING:
    from PIL.Image import Image

TRUTH = "truth"
FRESH = 10_000
"""Added to the seed of the reference draws for the fresh ones."""
METRICS = tuple(CompositionScores.__dataclass_fields__)
Values = dict[str, dict[str, dict[str, list[float]]]]
"""System -> pair -> metric -> one value a picture; ``nan`` where it cannot be told."""


@dataclass(frozen=True)
class CompositionJudge:
    """Scores every output of two composed effects; `composition` makes it.

    ``draws``: of each truth with a stochastic effect in it, the nearest counts.
    """

    composed: Composed
    cache: Path
    draws: int = 4
    seed: int = 0
    distance: HedVggLpips = field(default_factory=HedVggLpips, repr=False)

    def measure(self, advance: Callable[[int], None] = lambda done: None) -> Values:
        """Judge every output; two orders of the same effects share the truths that they are compared with."""
        values: Values = {}
        for number, path in enumerate(self.composed.sources):
            for pair in (pair for pair in self.composed.pairs if pair.first < pair.second):
                for (system, asked), verdict in self.judge(number, path, pair).items():
                    rows = values.setdefault(system, {}).setdefault(asked.name, {name: [] for name in METRICS})
                    for name, value in asdict(verdict).items():
                        rows[name].append(value)
                advance(1)
        return values

    def judge(self, number: int, path: Path, pair: Pair) -> dict[tuple[str, Pair], CompositionScores]:
        """Return the verdicts on one picture, for every system and both orders of two effects."""
        orders = (pair, pair.swapped)
        made = {(name, o): outputs[o][number] for name, outputs in self.composed.outputs.items() for o in orders}
        size = next(iter(made.values())).size
        pixels = np.asarray(open_picture(path).resize(size, Pillow.Resampling.LANCZOS), dtype=np.uint8)
        for order in orders:
            fresh = composed_draws(order.first, order.second, pixels, 1, self.seed + FRESH, self.cache)
            (made[TRUTH, order],) = self.composed.reconstruct(_pictures(fresh))
        truths = {
            name: self.composed.reconstruct(_pictures(draws)) for name, draws in self._truths(pair, pixels).items()
        }
        found = {}
        for (system, order), near in zip(made, self._nearest(list(made.values()), truths), strict=True):
            rivals = {"source": near["source"], "first": near[order.first], "second": near[order.second]}
            found[system, order] = judge(near[order.name], rivals | {"swapped": near[order.swapped.name]})
        return found

    def _truths(self, pair: Pair, pixels: Picture) -> dict[str, NDArray[np.uint8]]:
        """Source, either effect alone, and both orders: (draws, H, W, 3) each."""
        alone = {
            name: truth_draws(name, pixels, self.draws, self.seed, self.cache) for name in (pair.first, pair.second)
        }
        orders = {
            order.name: composed_draws(order.first, order.second, pixels, self.draws, self.seed, self.cache)
            for order in (pair, pair.swapped)
        }
        return {"source": pixels[None], **alone, **orders}

    def _nearest(self, outputs: Sequence[Image], truths: Mapping[str, Sequence[Image]]) -> list[dict[str, float]]:
        """Distance of each output to the nearest draw of each truth."""
        flat = _signal([picture for draws in truths.values() for picture in draws])
        table = self.distance.distances(_signal(outputs), flat, centre=flat[:1])
        counts = [len(draws) for draws in truths.values()]
        return [
            {name: float(part.min()) for name, part in zip(truths, torch.split(row, counts), strict=True)}
            for row in table
        ]


def summarise(values: Values) -> dict[str, dict[str, dict[str, Any]]]:
    """Mean over pairs and pictures of each metric of each system, with a bootstrap interval over pictures."""
    return {
        system: {
            name: asdict(resample(np.array([rows[name] for rows in pairs.values()]).T).interval()) for name in METRICS
        }
        for system, pairs in values.items()
    }


def _pictures(draws: NDArray[np.uint8]) -> list[Image]:
    return [Pillow.fromarray(draw) for draw in draws]


def _signal(pictures: Sequence[Image]) -> Tensor:
    """Stack RGB pictures to ``[B, 3, H, W]`` in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1.0
