"""``hed-vgg-lpips``: the perceptual distance itself, to the source (what is kept) and to the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from .distances import relative, to_own
from .held_out import held_out_samples
from .score_table import ScoreTable
from .truth_metric import TruthMetric


class HedVggLpipsMetric(TruthMetric):
    """Means over all draws, where the effect has several: what LPIPS is to the truth that happens to be at hand.

    (``truth-distance`` takes the nearest draw.)
    """

    version = "1"
    columns: ClassVar[Mapping[str, Column]] = {
        "lpips_source": Column("HED-VGG LPIPS to the source"),
        "lpips_truth": Column("HED-VGG LPIPS to the truth", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        scores = ScoreTable(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            for effect, keys, features in sample.by_effect():
                to_source = relative(features, sample.truths).lengths.tolist()
                to_truth = to_own(features, effect, sample.truths)[0].mean(dim=1).tolist()
                for key, source, truth in zip(keys, to_source, to_truth, strict=True):
                    scores.put(key, "lpips_source", source)
                    scores.put(key, "lpips_truth", truth)
        return scores.result()
