"""``bcr-oracle`` and ``vsa-oracle``: the paper's bad cases and subject consistency, judged by the truth instead of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch

from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import FAILURE, Column, MetricValues

from ..metrics.bad_case import SOFT, OracleVerdict, detail_ratio, judge
from ..metrics.sketch import STRUCTURE
from ..metrics.subject import consistency
from .distances import Centres, relative
from .features import PictureFeatures
from .held_out import HeldOutSample, SampleKey, held_out_samples, known_effects
from .score_table import ScoreTable
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
        scores, effects = ScoreTable(request), known_effects(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            for key, verdict in verdicts(sample, effects, self.soft):
                scores.put(key, "bad_case", verdict.bad)
                scores.put(key, "soft_case", verdict.soft)
                scores.tag(key, FAILURE, verdict.family)
        return scores.result()


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
        scores, effects = ScoreTable(request), known_effects(request)
        for sample in held_out_samples(request, self.open_extractor(request), self.draws, self.seed):
            if not any(other.size == sample.truths.size for other in sample.others):
                raise NotMeasured("subject consistency needs another subject: give two pictures of one size or more")
            bad = {key: verdict.bad for key, verdict in verdicts(sample, effects)}
            for effect, keys, features in sample.by_effect():
                truth = float(relative(sample.truths.own(effect), sample.truths, STRUCTURE).lengths.mean())
                unrelated = _unrelated(effect, sample.truths, sample.others)
                for key, output in zip(
                    keys, relative(features, sample.truths, STRUCTURE).lengths.tolist(), strict=True
                ):
                    score = consistency(output, truth, unrelated)
                    # Where the effect itself leaves no subject, bad cases have no score either: they would be all there is.
                    scores.put(key, "vsa", 0.0 if bad[key] and score is not None else score)
        return scores.result()


def verdicts(
    sample: HeldOutSample, effects: Sequence[str], soft: float = SOFT
) -> Iterator[tuple[SampleKey, OracleVerdict]]:
    """Judge the outputs of one picture by their distances to the centres of all effects' truths."""
    centres = Centres.of(effects, sample.truths)
    unedited = centres.of_source()
    for effect, keys, features in sample.by_effect():
        outputs = relative(features, sample.truths)
        typical = sample.truths.own(effect)["energy"].tolist()
        rows = zip(keys, centres.distances(outputs), outputs.lengths.tolist(), _energies(features), strict=True)
        for key, distances, to_source, energy in rows:
            yield key, judge(effect, distances, to_source, unedited, detail_ratio(energy, typical), soft)


def _energies(features: PictureFeatures) -> list[float]:
    energies: list[float] = features["energy"].tolist()
    return energies


def _unrelated(effect: str, truths: Truths, others: Sequence[Truths]) -> float:
    """Mean structural distance between this source and the effect's truth on other pictures of its size."""
    sketches = [other.own(effect)["sketch"][:1] for other in others if other.size == truths.size]
    return float(relative({"sketch": torch.cat(sketches)}, truths, STRUCTURE).lengths.mean())
