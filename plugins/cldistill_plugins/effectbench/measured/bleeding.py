"""``bleeding``: what shows of an effect where its trigger is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import PROBES, Column, MetricValues

from ..metrics.bleeding import bleeding
from .distances import Centres, relative
from .held_out import held_out_samples
from .score_table import ScoreTable
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
        scores = ScoreTable(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed, PROBES):
            for effect, keys, features in sample.by_effect():
                truth, outputs = Centres.of([effect], sample.truths), relative(features, sample.truths)
                unedited = truth.of_source()[effect]
                rows = zip(keys, truth.distances(outputs), outputs.lengths.tolist(), strict=True)
                for key, distances, to_source in rows:
                    value = bleeding(distances[effect], to_source, unedited) if unedited > 0 else None
                    scores.put(key, f"bleeding_{key.probe.replace('-', '_')}", value)
        return scores.result()
