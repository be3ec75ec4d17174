"""``effect-recognition``: which effect is this picture?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from ..metrics.recognition import Recogniser
from .board import Board
from .looks import EarlyEye
from .sights import known_effects, sights
from .truth_metric import TruthMetric


class EffectRecognition(TruthMetric):
    """``recognised``: 1 where early-layer statistics tell the right effect, known from other pictures' truths."""

    eye = EarlyEye
    cached_by = "effects"
    version = "2"
    columns: ClassVar[Mapping[str, Column]] = {"recognised": Column("effect recognised", "higher", percent=True)}

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank.

        Raises:
            NotMeasured: there is one held-out picture only, so that no effect is known from another one.
        """
        board, effects = Board(request), known_effects(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            if not sight.others:
                raise NotMeasured("an effect is recognised by its truth on other pictures: give two pictures or more")
            known = Recogniser({effect: [other.own(effect)["early"] for other in sight.others] for effect in effects})
            for effect, places, look in sight.by_effect():
                for place, name in zip(places, known.names(look["early"]), strict=True):
                    board.put(place, "recognised", name == effect)
        return board.result()
