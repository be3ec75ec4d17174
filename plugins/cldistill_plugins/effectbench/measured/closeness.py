"""``closeness``: how much of the way from the source to the truth an output has gone, and whose truth is nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from .distances import Rivals, relative, share_of_way
from .held_out import held_out_samples, known_effects
from .score_table import ScoreTable
from .truth_metric import TruthMetric


class Closeness(TruthMetric):
    """``closeness = 1 - d(output) / d(source)`` to the nearest truth draw, and ``nearest_is_right``."""

    version = "1"
    cached_by = "effects"
    columns: ClassVar[Mapping[str, Column]] = {
        "closeness": Column("closeness to the truth", "higher"),
        "distance": Column("distance to the truth", "lower"),
        "nearest_is_right": Column("right truth nearest", "higher", percent=True),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        scores, effects = ScoreTable(request), known_effects(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            rivals = Rivals.of(effects, sample.truths, self.draws)
            unedited = rivals.of_source()
            for effect, keys, features in sample.by_effect():
                found = rivals.nearest(relative(features, sample.truths))
                for key, distances in zip(keys, found, strict=True):
                    own = distances[effect]
                    scores.put(key, "distance", own)
                    scores.put(key, "closeness", share_of_way(own, unedited[effect]))
                    scores.put(key, "nearest_is_right", own <= min(distances.values()))
        return scores.result()
