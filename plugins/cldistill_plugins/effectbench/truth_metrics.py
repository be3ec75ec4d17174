"""Metrics against the truth: the bank knows what each effect makes of a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from cldistill.data import open_picture
from cldistill.protocols import MetricRequest
from cldistill.records import MetricValues

from .bank import SIX, truth_draws
from .metrics.closeness import closeness, nearest_draw, nearest_effect
from .metrics.hed_vgg_lpips import HedVggLpips
from .metrics.high_frequency import distance_to_truth, energy, log_ratio

if TYPE_CHECKING:
    from PIL.Image import Image

Values = dict[str, dict[str, dict[str, list[float]]]]
"""System -> effect -> metric -> one value a picture."""


@dataclass(frozen=True)
class Sight:
    """One held-out picture: what it is, what each effect truly makes of it, and what each system made."""

    source: Tensor
    """VAE(source), ``[1, 3, H, W]`` in [-1, 1]."""
    truths: Mapping[str, Tensor]
    """Effect -> VAE(truth draws), ``[draws, 3, H, W]``."""
    outputs: Mapping[tuple[str, str], Tensor]
    """(system, effect) -> ``[1, 3, H, W]``."""


def sights(request: MetricRequest, draws: int, seed: int) -> Iterator[Sight]:
    """Yield the held-out pictures one by one, so that one picture's truths are in memory at a time."""
    effects = [effect.name for effect in request.effects if effect.name in SIX and effect.name in request.items]
    count = len(request.items[effects[0]]) if effects else 0
    for index in range(count):
        made = {
            (system, effect): pools[effect][index]
            for system, pools in request.outputs.items()
            for effect in effects
            if effect in pools
        }
        size = next(iter(made.values())).size
        source = open_picture(request.items[effects[0]][index].sources[0]).resize(size, Pillow.Resampling.LANCZOS)
        pixels = np.asarray(source, dtype=np.uint8)
        truths = {effect: truth_draws(effect, pixels, draws, seed, request.cache / "truths") for effect in effects}
        yield Sight(
            source=to_tensor(request.reconstruct([source])),
            truths={
                effect: to_tensor(request.reconstruct([Pillow.fromarray(draw) for draw in stack]))
                for effect, stack in truths.items()
            },
            outputs={key: to_tensor([picture]) for key, picture in made.items()},
        )
        request.advance((index + 1) / count)


def to_tensor(pictures: Sequence[Image]) -> Tensor:
    """Stack RGB pictures to ``[B, 3, H, W]`` in [-1, 1]."""
    arrays = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2) / 127.5 - 1.0


def as_result(values: Values) -> dict[str, dict[str, MetricValues]]:
    """Give collected values the shape that a metric returns."""
    return {
        system: {effect: MetricValues(found) for effect, found in pools.items()} for system, pools in values.items()
    }


def empty() -> Values:
    """Start a collection of values."""
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))


class Closeness:
    """``closeness = 1 - d(output) / d(source)`` to the nearest truth draw, and ``nearest_is_right``."""

    def __init__(self, draws: int = 16, seed: int = 0) -> None:
        self.draws = draws
        self.seed = seed
        self.distance = HedVggLpips()

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        values = empty()
        for sight in sights(request, self.draws, self.seed):
            unedited, *edited = self._distances(sight)
            for (system, effect), distances in zip(sight.outputs, edited, strict=True):
                nearest = nearest_effect(distances)
                own = nearest.distances[effect]
                found = values[system][effect]
                found["distance"].append(own)
                found["closeness"].append(float(closeness(own, nearest_draw(unedited[effect]))))
                found["nearest_is_right"].append(float(nearest.is_right(effect)))
        return as_result(values)

    def _distances(self, sight: Sight) -> list[dict[str, list[float]]]:
        """Distances to each effect's truth draws: first those of the unedited source, then those of each output."""
        pictures = torch.cat([sight.source, *sight.outputs.values()])
        table = self.distance.distances(pictures, torch.cat(list(sight.truths.values())), centre=sight.source)
        counts = [len(truth) for truth in sight.truths.values()]
        return [
            {effect: part.tolist() for effect, part in zip(sight.truths, row.split(counts), strict=True)}
            for row in table
        ]


class HighFrequencyEnergy:
    """``hf_log_ratio`` (below 0: smoother than the truth) and its size ``hf_distance``."""

    def __init__(self, draws: int = 16, seed: int = 0) -> None:
        self.draws = draws
        self.seed = seed

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        values = empty()
        for sight in sights(request, self.draws, self.seed):
            truths = {effect: energy(pictures) for effect, pictures in sight.truths.items()}
            for (system, effect), picture in sight.outputs.items():
                own, truth = energy(picture), truths[effect].unsqueeze(0)
                typical = truth.clamp_min(1e-12).log().mean(dim=1).exp()
                values[system][effect]["hf_log_ratio"].append(float(log_ratio(own, typical)))
                values[system][effect]["hf_distance"].append(float(distance_to_truth(own, truth)))
        return as_result(values)
