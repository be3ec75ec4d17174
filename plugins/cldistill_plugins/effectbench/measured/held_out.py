"""Held-out samples, one source picture after the other: its truths, and the output of every system for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cldistill.protocols import MetricRequest
from cldistill.records import FLOOR, probe_pool

from ..bank import knows
from .features import FeatureExtractor, PictureFeatures, ensure, feature_cache, feature_key, joined
from .truths import Truths, as_signal

if TYPE_CHECKING:
    from PIL.Image import Image


class SampleKey(NamedTuple):
    """The position of one output in a metric's result: whose it is, in which pool and at which index."""

    system: str
    pool: str
    at: int

    @property
    def effect(self) -> str:
        """The effect that was asked for; the pool of a probe is ``<effect>/<probe>``."""
        return self.pool.partition("/")[0]

    @property
    def probe(self) -> str:
        """The probe, named for what stands in the trigger's stead; empty for the effect itself."""
        return self.pool.partition("/")[2]


@dataclass(frozen=True)
class HeldOutSample:
    """One held-out source picture with its truths and outputs; made by `held_out_samples`, read by the metrics."""

    truths: Truths
    others: Sequence[Truths]
    """The truths of the other source pictures."""
    outputs: Mapping[SampleKey, PictureFeatures]
    """The features of each output; those of the system ``floor`` are of a fresh truth draw."""

    def by_effect(self) -> Iterator[tuple[str, list[SampleKey], PictureFeatures]]:
        """Yield the outputs that were asked for the same effect: its name, their keys, and their features in one."""
        effects: dict[str, list[SampleKey]] = {}
        for key in self.outputs:
            effects.setdefault(key.effect, []).append(key)
        for effect, keys in effects.items():
            yield effect, keys, joined([self.outputs[key] for key in keys])


def known_effects(request: MetricRequest) -> list[str]:
    """Return the effects whose truth the bank knows and whose pictures were asked for."""
    return [effect.name for effect in request.effects if knows(effect.name) and effect.name in request.items]


def held_out_samples(
    request: MetricRequest, extractor: FeatureExtractor, draws: int, seed: int, probes: Sequence[str] = ()
) -> Iterator[HeldOutSample]:
    """Yield the held-out pictures one by one, so that one picture's outputs are in memory at a time.

    Args:
        probes: take the outputs of these probes (``untriggered``) instead of those of the effects themselves;
            there is no floor then.
    """
    effects = known_effects(request)
    pools = [probe_pool(effect, probe) for effect in effects for probe in probes] if probes else effects
    keys = _keys(request, pools)
    truths = {
        path: Truths(request, extractor, path, _size(request, found), draws, seed) for path, found in keys.items()
    }
    digests = request.digests
    for number, (path, found) in enumerate(keys.items()):
        names = {key: digests[key.system][key.pool][key.at] for key in found}
        features = _features(request, extractor, names, number, len(keys))
        if not probes:
            floors = (SampleKey(FLOOR, pool, index) for pool, index in dict.fromkeys(_of(request, pools, path)))
            features.update((key, truths[path].fresh(key.effect)) for key in floors)
        others = [truths[other] for other in keys if other != path]
        yield HeldOutSample(truths[path], others, features)
        request.advance((number + 1) / len(keys))


def _keys(request: MetricRequest, pools: Sequence[str]) -> dict[Path, list[SampleKey]]:
    """Every output by the picture that it was made of."""
    found: dict[Path, list[SampleKey]] = {}
    for system, made in request.outputs.items():
        for pool in pools:
            if pool in made:
                for index, item in enumerate(request.items[pool]):
                    found.setdefault(item.sources[0], []).append(SampleKey(system, pool, index))
    return found


def _of(request: MetricRequest, pools: Sequence[str], path: Path) -> Iterator[tuple[str, int]]:
    for pool in pools:
        for index, item in enumerate(request.items[pool]):
            if item.sources[0] == path:
                yield pool, index


def _features(
    request: MetricRequest, extractor: FeatureExtractor, names: Mapping[SampleKey, str], number: int, count: int
) -> dict[SampleKey, PictureFeatures]:
    """Compute the features of one picture's outputs, given their digests."""
    cache, ready = feature_cache(request.cache), 0

    def advance(more: int) -> None:
        nonlocal ready
        ready += more
        request.advance((number + 0.9 * ready / len(names)) / count)

    ensure(cache, extractor, {name: lambda key=key: _read(request, key) for key, name in names.items()}, advance)  # type: ignore[misc]
    return {key: cache.get(feature_key(extractor, name), dict) for key, name in names.items()}


def _read(request: MetricRequest, key: SampleKey) -> Tensor:
    return to_signal([request.outputs[key.system][key.pool][key.at]])


def _size(request: MetricRequest, keys: Sequence[SampleKey]) -> tuple[int, int]:
    first = keys[0]
    return request.outputs[first.system][first.pool][first.at].size


def to_signal(pictures: Sequence[Image]) -> Tensor:
    """Stack RGB pictures to ``[B, 3, H, W]`` in [-1, 1]."""
    return as_signal(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
