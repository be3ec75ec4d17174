"""``effect-recognition``: which effect is this picture?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from ..metrics.recognition import Recogniser
from .features import EarlyExtractor
from .held_out import held_out_samples, known_effects
from .score_table import ScoreTable
from .truth_metric import TruthMetric


class EffectRecognition(TruthMetric):
    """``recognised``: 1 where early-layer statistics tell the right effect, known from other pictures' truths."""

    extractor = EarlyExtractor
    cached_by = "effects"
    version = "2"
    columns: ClassVar[Mapping[str, Column]] = {"recognised": Column("effect recognised", "higher", percent=True)}

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank.

        Raises:
            NotMeasured: there is one held-out picture only, so that no effect is known from another one.
        """
        scores, effects = ScoreTable(request), known_effects(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            if not sample.others:
                raise NotMeasured("an effect is recognised by its truth on other pictures: give two pictures or more")
            known = Recogniser({effect: [other.own(effect)["early"] for other in sample.others] for effect in effects})
            for effect, keys, features in sample.by_effect():
                for key, name in zip(keys, known.names(features["early"]), strict=True):
                    scores.put(key, "recognised", name == effect)
        return scores.result()
