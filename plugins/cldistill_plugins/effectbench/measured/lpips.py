"""``hed-vgg-lpips``: the perceptual distance itself, to the source (what is kept) and to the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from .board import Board
from .distances import relative, to_own
from .sights import sights
from .truth_metric import TruthMetric


class HedVggLpipsMetric(TruthMetric):
    """Means over all draws, where the effect has several: what LPIPS is to the truth that happens to be at hand.

    (``truth-distance`` takes the nearest draw.)
    """

    columns: ClassVar[Mapping[str, Column]] = {
        "lpips_source": Column("HED-VGG LPIPS to the source"),
        "lpips_truth": Column("HED-VGG LPIPS to the truth", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        board = Board(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            for effect, places, look in sight.by_effect():
                to_source = relative(look, sight.truths).lengths.tolist()
                to_truth = to_own(look, effect, sight.truths)[0].mean(dim=1).tolist()
                for place, source, truth in zip(places, to_source, to_truth, strict=True):
                    board.put(place, "lpips_source", source)
                    board.put(place, "lpips_truth", truth)
        return board.result()
