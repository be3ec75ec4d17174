"""``bcr-oracle`` and ``vsa-oracle``: the paper's bad cases and subject consistency, judged by the truth instead of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch

from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import FAILURE, Column, MetricValues

from ..metrics.bad_case import SOFT, Verdict, detail_ratio, judge
from ..metrics.sketch import STRUCTURE
from ..metrics.subject import consistency
from .board import Board
from .distances import Centres, relative
from .looks import Look
from .sights import Place, Sight, known_effects, sights
from .truth_metric import TruthMetric
from .truths import Truths


class BcrOracle(TruthMetric):
    """``bad_case`` and ``soft_case``: 1 or 0 a picture, so that their means are rates; the family is a tag."""

    cached_by = "effects"
    version = "2"
    columns: ClassVar[Mapping[str, Column]] = {
        "bad_case": Column("bad cases (oracle)", "lower", percent=True),
        "soft_case": Column("right, but without detail", "lower", percent=True),
    }

    def __init__(self, draws: int = 16, seed: int = 0, soft: float = SOFT) -> None:
        """Args: soft: share of the truth's detail below which an output counts as soft."""
        super().__init__(draws, seed)
        self.soft = soft

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Judge every output of every system on every effect of the bank, and fresh truth draws as the floor."""
        board, effects = Board(request), known_effects(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            for place, verdict in verdicts(sight, effects, self.soft):
                board.put(place, "bad_case", verdict.bad)
                board.put(place, "soft_case", verdict.soft)
                board.tag(place, FAILURE, verdict.family)
        return board.result()


class VsaOracle(TruthMetric):
    """``vsa``: 0 for a bad case, else 1 to 5 for what is left of the subject."""

    cached_by = "effects"
    version = "2"
    columns: ClassVar[Mapping[str, Column]] = {"vsa": Column("subject consistency, 0 to 5 (oracle)", "higher")}

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Score every output of every system on every effect of the bank.

        Raises:
            NotMeasured: there is one held-out picture only, so that no other subject is known.
        """
        board, effects = Board(request), known_effects(request)
        for sight in sights(request, self.look(request), self.draws, self.seed):
            if not any(other.size == sight.truths.size for other in sight.others):
                raise NotMeasured("subject consistency needs another subject: give two pictures of one size or more")
            bad = {place: verdict.bad for place, verdict in verdicts(sight, effects)}
            for effect, places, look in sight.by_effect():
                truth = float(relative(sight.truths.own(effect), sight.truths, STRUCTURE).lengths.mean())
                unrelated = _unrelated(effect, sight.truths, sight.others)
                for place, output in zip(places, relative(look, sight.truths, STRUCTURE).lengths.tolist(), strict=True):
                    score = consistency(output, truth, unrelated)
                    # Where the effect itself leaves no subject, bad cases have no score either: they would be all there is.
                    board.put(place, "vsa", 0.0 if bad[place] and score is not None else score)
        return board.result()


def verdicts(sight: Sight, effects: Sequence[str], soft: float = SOFT) -> Iterator[tuple[Place, Verdict]]:
    """Judge the outputs of one picture by their distances to the centres of all effects' truths."""
    centres = Centres.of(effects, sight.truths)
    unedited = centres.of_source()
    for effect, places, look in sight.by_effect():
        outputs = relative(look, sight.truths)
        typical = sight.truths.own(effect)["energy"].tolist()
        rows = zip(places, centres.distances(outputs), outputs.lengths.tolist(), _energies(look), strict=True)
        for place, distances, to_source, energy in rows:
            yield place, judge(effect, distances, to_source, unedited, detail_ratio(energy, typical), soft)


def _energies(look: Look) -> list[float]:
    energies: list[float] = look["energy"].tolist()
    return energies


def _unrelated(effect: str, truths: Truths, others: Sequence[Truths]) -> float:
    """Mean structural distance between this source and the effect's truth on other pictures of its size."""
    looks = [other.own(effect)["sketch"][:1] for other in others if other.size == truths.size]
    return float(relative({"sketch": torch.cat(looks)}, truths, STRUCTURE).lengths.mean())
