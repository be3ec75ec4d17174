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
from .board import Board
from .distances import share_of_way, to_own
from .sights import Place, Sight, sights
from .truth_metric import TruthMetric


class TruthDistance(TruthMetric):
    """Nearest draw for single outputs; the energy distance for all outputs of a stochastic effect together."""

    columns: ClassVar[Mapping[str, Column]] = {
        "truth_distance": Column("distance to the truth", "lower"),
        "truth_closeness": Column("closeness to the truth", "higher"),
        "truth_energy": Column("energy distance to the truth's draws", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect of the bank."""
        board, styles = Board(request), Styles()
        for sight in sights(request, self.look(request), self.draws, self.seed):
            for effect, places, look in sight.by_effect():
                table, unedited = to_own(look, effect, sight.truths)
                for place, distance in zip(places, table.amin(dim=1).tolist(), strict=True):
                    board.put(place, "truth_distance", distance)
                    board.put(place, "truth_closeness", share_of_way(distance, float(unedited.min())))
            styles.add(sight)
        for place, value in styles.energies().items():
            board.put(place, "truth_energy", value)
        return board.result()


class Styles:
    """Style statistics of the stochastic effects' outputs and truth draws, gathered over pictures."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], list[tuple[Place, Tensor, Tensor]]] = defaultdict(list)

    def add(self, sight: Sight) -> None:
        """Gather one picture's."""
        for place, look in sight.outputs.items():
            if named(place.effect).stochastic:
                draws = sight.truths.own(place.effect)["style"]
                self._made[place.system, place.pool].append((place, look["style"][0], draws))

    def energies(self) -> dict[Place, float]:
        """Return one value a picture; none where there are too few pictures or draws, or the draws are all equal."""
        found: dict[Place, float] = {}
        for rows in self._made.values():
            places, outputs, draws = zip(*rows, strict=True)
            if len(rows) < 2 or len(draws[0]) < 2:
                continue
            mine, truth = residuals(torch.stack(outputs), draws)
            if bool(truth.any()):
                found.update(zip(places, energy_values(mine, truth).tolist(), strict=True))
        return found
