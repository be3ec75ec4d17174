"""Every built-in metric says its version: its cached values outlive an edit of the code that leaves them as they are."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest

from cldistill.catalogue import load_catalogue
from cldistill_plugins.effectbench.measured.bleeding import Bleeding
from cldistill_plugins.effectbench.measured.closeness import Closeness
from cldistill_plugins.effectbench.measured.high_frequency import HighFrequencyEnergy
from cldistill_plugins.effectbench.measured.lpips import HedVggLpipsMetric
from cldistill_plugins.effectbench.measured.oracle import BcrOracle, VsaOracle
from cldistill_plugins.effectbench.measured.recognition import EffectRecognition
from cldistill_plugins.effectbench.measured.retention import Retention
from cldistill_plugins.effectbench.measured.truth_distance import TruthDistance
from cldistill_plugins.evaluators.compared import Compared
from cldistill_plugins.evaluators.editreward import EditReward
from cldistill_plugins.evaluators.judge import Judge
from cldistill_plugins.evaluators.likeness import Likeness

DECLARED: dict[str, type] = {
    "bcr-oracle": BcrOracle, "bleeding": Bleeding, "closeness": Closeness, "editreward": EditReward,
    "effect-recognition": EffectRecognition, "hed-vgg-lpips": HedVggLpipsMetric, "mllm-judge": Judge,
    "high-frequency-energy": HighFrequencyEnergy, "likeness": Likeness, "retention": Retention, "truth-distance": TruthDistance,
    "vsa-oracle": VsaOracle,
}  # fmt: skip
COMPARED = ("clip", "dino", "dreamsim")
"""Metrics of one class, built with the version of their own code and weights."""


@pytest.mark.parametrize("name", DECLARED)
def test_the_class_of_a_metric_declares_its_version(name: str) -> None:
    version = vars(DECLARED[name]).get("version")
    assert isinstance(version, str) and version


def test_similarities_cannot_be_built_without_a_version() -> None:
    (version,) = (field for field in fields(Compared) if field.name == "version")
    assert version.default is MISSING and version.default_factory is MISSING


def test_no_built_in_metric_is_left_out() -> None:
    parts = [entry.component for entry in load_catalogue() if entry.component.kind == "metric"]
    built_in = {part.name for part in parts if part.build.__module__.startswith("cldistill_plugins.")}
    assert built_in == {*DECLARED, *COMPARED}
