"""``bleeding``: what shows of an effect where its trigger is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import PROBES, Column, MetricValues

from ..metrics.bleeding import bleeding
from .board import Board
from .distances import to_own
from .sights import sights
from .truth_metric import TruthMetric


class Bleeding(TruthMetric):
    """``bleeding_untriggered``, ``bleeding_wrong_trigger``: share of the way to the effect's truth, 0 where nothing shows."""

    columns: ClassVar[Mapping[str, Column]] = {
        "bleeding_untriggered": Column("bleeding without the trigger", "lower", percent=True),
        "bleeding_wrong_trigger": Column("bleeding under an unknown trigger", "lower", percent=True),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system that was asked the probes."""
        board, eye = Board(request), self.look(request)
        for probe in PROBES:
            for sight in sights(request, eye, self.draws, self.seed, probe):
                for effect, places, look in sight.by_effect():
                    table, unedited = to_own(look, effect, sight.truths)
                    for place, distance in zip(places, table.amin(dim=1).tolist(), strict=True):
                        value = bleeding(distance, float(unedited.min()))
                        board.put(place, f"bleeding_{probe.replace('-', '_')}", value)
        return board.result()
