"""One held-out picture after the other: its truths, and what every system made of it."""

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
from .looks import Eye, Look, album, ensure, joined, key_of
from .truths import Truths, as_signal

if TYPE_CHECKING:
    from PIL.Image import Image


class Place(NamedTuple):
    """Where a picture belongs: the value of a metric for it goes there."""

    system: str
    pool: str
    at: int

    @property
    def effect(self) -> str:
        """The effect that was asked for; the pool of a probe is ``<effect>/<probe>``."""
        return self.pool.partition("/")[0]

    @property
    def probe(self) -> str:
        """What was left out or put in instead of the effect's trigger; empty for the effect itself."""
        return self.pool.partition("/")[2]


@dataclass(frozen=True)
class Sight:
    """One source picture."""

    truths: Truths
    others: Sequence[Truths]
    """Those of the other pictures."""
    outputs: Mapping[Place, Look]
    """What was made of it, each a look of 1; the system ``floor`` made a fresh truth draw."""

    def by_effect(self) -> Iterator[tuple[str, list[Place], Look]]:
        """Yield the outputs that were asked for the same effect: its name, their places, and one look of all."""
        effects: dict[str, list[Place]] = {}
        for place in self.outputs:
            effects.setdefault(place.effect, []).append(place)
        for effect, places in effects.items():
            yield effect, places, joined([self.outputs[place] for place in places])


def known_effects(request: MetricRequest) -> list[str]:
    """Return the effects whose truth the bank knows and whose pictures were asked for."""
    return [effect.name for effect in request.effects if knows(effect.name) and effect.name in request.items]


def sights(request: MetricRequest, eye: Eye, draws: int, seed: int, probes: Sequence[str] = ()) -> Iterator[Sight]:
    """Yield the held-out pictures one by one, so that one picture's outputs are in memory at a time.

    Args:
        probes: look at the outputs of these probes (``untriggered``) instead of those of the effects themselves;
            there is no floor then.
    """
    effects = known_effects(request)
    pools = [probe_pool(effect, probe) for effect in effects for probe in probes] if probes else effects
    places = _places(request, pools)
    truths = {path: Truths(request, eye, path, _size(request, found), draws, seed) for path, found in places.items()}
    digests = request.digests
    for number, (path, found) in enumerate(places.items()):
        names = {place: digests[place.system][place.pool][place.at] for place in found}
        looks = _look(request, eye, names, number, len(places))
        if not probes:
            floors = (Place(FLOOR, pool, index) for pool, index in dict.fromkeys(_of(request, pools, path)))
            looks.update((place, truths[path].fresh(place.effect)) for place in floors)
        others = [truths[other] for other in places if other != path]
        yield Sight(truths[path], others, looks)
        request.advance((number + 1) / len(places))


def _places(request: MetricRequest, pools: Sequence[str]) -> dict[Path, list[Place]]:
    """Every output by the picture that it was made of."""
    found: dict[Path, list[Place]] = {}
    for system, made in request.outputs.items():
        for pool in pools:
            if pool in made:
                for index, item in enumerate(request.items[pool]):
                    found.setdefault(item.sources[0], []).append(Place(system, pool, index))
    return found


def _of(request: MetricRequest, pools: Sequence[str], path: Path) -> Iterator[tuple[str, int]]:
    for pool in pools:
        for index, item in enumerate(request.items[pool]):
            if item.sources[0] == path:
                yield pool, index


def _look(request: MetricRequest, eye: Eye, names: Mapping[Place, str], number: int, count: int) -> dict[Place, Look]:
    """Look at the outputs of one picture, given their digests."""
    cache, ready = album(request.cache), 0

    def advance(more: int) -> None:
        nonlocal ready
        ready += more
        request.advance((number + 0.9 * ready / len(names)) / count)

    ensure(cache, eye, {name: lambda place=place: _read(request, place) for place, name in names.items()}, advance)  # type: ignore[misc]
    return {place: cache.get(key_of(eye, name), dict) for place, name in names.items()}


def _read(request: MetricRequest, place: Place) -> Tensor:
    return to_signal([request.outputs[place.system][place.pool][place.at]])


def _size(request: MetricRequest, places: Sequence[Place]) -> tuple[int, int]:
    first = places[0]
    return request.outputs[first.system][first.pool][first.at].size


def to_signal(pictures: Sequence[Image]) -> Tensor:
    """Stack RGB pictures to ``[B, 3, H, W]`` in [-1, 1]."""
    return as_signal(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
