"""``high-frequency-energy``: where over-smoothing shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from ..metrics.high_frequency import distance_to_truth, log_ratio
from .features import EnergyExtractor
from .held_out import held_out_samples
from .score_table import ScoreTable
from .truth_metric import TruthMetric


class HighFrequencyEnergy(TruthMetric):
    """``hf_log_ratio`` (below 0: smoother than the truth) and its size ``hf_distance``."""

    version = "1"
    extractor = EnergyExtractor
    columns: ClassVar[Mapping[str, Column]] = {
        "hf_log_ratio": Column("log of detail over the truth's"),
        "hf_distance": Column("detail's distance to the truth's", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        scores = ScoreTable(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            for effect, keys, features in sample.by_effect():
                truth = sample.truths.own(effect)["energy"].unsqueeze(0)
                typical = truth.clamp_min(1e-12).log().mean(dim=1).exp()
                for key, own in zip(keys, features["energy"].unsqueeze(1), strict=True):
                    scores.put(key, "hf_log_ratio", float(log_ratio(own, typical)))
                    scores.put(key, "hf_distance", float(distance_to_truth(own, truth)))
        return scores.result()
