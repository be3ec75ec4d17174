"""``truth-distance``: how far an output is from what the effect truly does, and whether a system draws as the truth draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

from ..bank import named
from ..metrics.energy_distance import energy_values, residuals
from .distances import share_of_way, to_own
from .held_out import HeldOutSample, SampleKey, held_out_samples
from .score_table import ScoreTable
from .truth_metric import TruthMetric


class TruthDistance(TruthMetric):
    """Nearest draw for single outputs; the energy distance for all outputs of a stochastic effect together."""

    version = "1"
    columns: ClassVar[Mapping[str, Column]] = {
        "truth_distance": Column("distance to the truth", "lower"),
        "truth_closeness": Column("closeness to the truth", "higher"),
        "truth_energy": Column("energy distance to the truth's draws", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        scores, styles = ScoreTable(request), Styles()
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            for effect, keys, features in sample.by_effect():
                table, unedited = to_own(features, effect, sample.truths)
                for key, distance in zip(keys, table.amin(dim=1).tolist(), strict=True):
                    scores.put(key, "truth_distance", distance)
                    scores.put(key, "truth_closeness", share_of_way(distance, float(unedited.min())))
            styles.add(sample)
        for key, value in styles.energies().items():
            scores.put(key, "truth_energy", value)
        return scores.result()


class Styles:
    """Style statistics of the stochastic effects' outputs and truth draws, gathered over pictures."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], list[tuple[SampleKey, Tensor, Tensor]]] = defaultdict(list)

    def add(self, sample: HeldOutSample) -> None:
        """Gather one picture's."""
        for key, features in sample.outputs.items():
            if named(key.effect).stochastic:
                draws = sample.truths.own(key.effect)["style"]
                self._made[key.system, key.pool].append((key, features["style"][0], draws))

    def energies(self) -> dict[SampleKey, float]:
        """Return one value a picture; none where there are too few pictures or draws, or the draws are all equal."""
        found: dict[SampleKey, float] = {}
        for rows in self._made.values():
            keys, outputs, draws = zip(*rows, strict=True)
            if len(rows) < 2 or len(draws[0]) < 2:
                continue
            mine, truth = residuals(torch.stack(outputs), draws)
            if bool(truth.any()):
                found.update(zip(keys, energy_values(mine, truth).tolist(), strict=True))
        return found
