"""``closeness``: how much of the way from the source to the truth an output has gone, and whose truth is nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from .board import Board
from .distances import Rivals, relative, share_of_way
from .sights import known_effects, sights
from .truth_metric import TruthMetric


class Closeness(TruthMetric):
    """``closeness = 1 - d(output) / d(source)`` to the nearest truth draw, and ``nearest_is_right``."""

    cached_by = "effects"
    columns: ClassVar[Mapping[str, Column]] = {
        "closeness": Column("closeness to the truth", "higher"),
        "distance": Column("distance to the truth", "lower"),
        "nearest_is_right": Column("right truth nearest", "higher", percent=True),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        board, effects = Board(request), known_effects(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            rivals = Rivals.of(effects, sight.truths, self.draws)
            unedited = rivals.of_source()
            for effect, places, look in sight.by_effect():
                found = rivals.nearest(relative(look, sight.truths))
                for place, distances in zip(places, found, strict=True):
                    own = distances[effect]
                    board.put(place, "distance", own)
                    board.put(place, "closeness", share_of_way(own, unedited[effect]))
                    board.put(place, "nearest_is_right", own <= min(distances.values()))
        return board.result()
