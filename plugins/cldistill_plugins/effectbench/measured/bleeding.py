"""``bleeding``: what shows of an effect where its trigger is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import PROBES, Column, MetricValues

from ..metrics.bleeding import bleeding
from .board import Board
from .distances import Centres, relative
from .sights import sights
from .truth_metric import TruthMetric


class Bleeding(TruthMetric):
    """``bleeding_untriggered``, ``bleeding_wrong_trigger``: share of the way to the effect's truth, 0 where nothing shows."""

    version = "2"
    columns: ClassVar[Mapping[str, Column]] = {
        "bleeding_untriggered": Column("bleeding without the trigger", "lower", percent=True),
        "bleeding_wrong_trigger": Column("bleeding under an unknown trigger", "lower", percent=True),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system that was asked the probes."""
        board = Board(request)
        for sight in sights(request, self.look(request), self.draws, self.seed, PROBES):
            for effect, places, look in sight.by_effect():
                truth, outputs = Centres.of([effect], sight.truths), relative(look, sight.truths)
                unedited = truth.of_source()[effect]
                rows = zip(places, truth.distances(outputs), outputs.lengths.tolist(), strict=True)
                for place, distances, to_source in rows:
                    value = bleeding(distances[effect], to_source, unedited) if unedited > 0 else None
                    board.put(place, f"bleeding_{place.probe.replace('-', '_')}", value)
        return board.result()
