"""``high-frequency-energy``: where over-smoothing shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from ..metrics.high_frequency import distance_to_truth, log_ratio
from .board import Board
from .looks import EnergyEye
from .sights import sights
from .truth_metric import TruthMetric


class HighFrequencyEnergy(TruthMetric):
    """``hf_log_ratio`` (below 0: smoother than the truth) and its size ``hf_distance``."""

    eye = EnergyEye
    columns: ClassVar[Mapping[str, Column]] = {
        "hf_log_ratio": Column("log of detail over the truth's"),
        "hf_distance": Column("detail's distance to the truth's", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        board = Board(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            for effect, places, look in sight.by_effect():
                truth = sight.truths.own(effect)["energy"].unsqueeze(0)
                typical = truth.clamp_min(1e-12).log().mean(dim=1).exp()
                for place, own in zip(places, look["energy"].unsqueeze(1), strict=True):
                    board.put(place, "hf_log_ratio", float(log_ratio(own, typical)))
                    board.put(place, "hf_distance", float(distance_to_truth(own, truth)))
        return board.result()
