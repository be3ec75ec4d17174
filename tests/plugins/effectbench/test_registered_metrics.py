"""The three registered metrics on requests whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cldistill.records import GENERAL, EffectInfo, Item
from cldistill_plugins.effectbench.bank import SIX, truth_draws
from cldistill_plugins.effectbench.metrics.hed_vgg_weights import MetricWeightsError
from cldistill_plugins.effectbench.plugin import register_metrics
from cldistill_plugins.effectbench.retention_metric import Retention
from cldistill_plugins.effectbench.truth_metrics import Closeness, HighFrequencyEnergy

pytest.importorskip("gmic")

EFFECTS = ("halftone", "mosaic", "party-frame")
Outputs = Mapping[str, Mapping[str, Sequence[Image.Image]]]


@dataclass
class Request:
    """A request whose VAE is perfect."""

    effects: Sequence[EffectInfo]
    items: Mapping[str, Sequence[Item]]
    outputs: Outputs
    cache: Path
    shares: list[float] = field(default_factory=list)

    def reconstruct(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        return list(pictures)

    def advance(self, share: float) -> None:
        self.shares.append(share)


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two pictures of 48x48: coloured blocks with a disc."""
    paths = []
    y, x = np.mgrid[0:48, 0:48]
    for seed in range(2):
        blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        picture = np.kron(blocks, np.ones((12, 12, 1), dtype=np.uint8))
        picture[(y - 24) ** 2 + (x - 20) ** 2 < 90] = (250, 240, 200)
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(picture).save(paths[-1])
    return paths


def request(tmp_path: Path, sources: Sequence[Path], outputs: Outputs) -> Request:
    effects = [EffectInfo(name, SIX[name].prompt) for name in EFFECTS]
    items = {e.name: [Item(f"{e.name}/{p.stem}", e.name, (p,), e.prompt) for p in sources] for e in effects}
    return Request(effects, items, outputs, tmp_path / "cache")


def truth(name: str, path: Path) -> Image.Image:
    """A truth of the effect; for the stochastic one the last of the draws that the metric compares with."""
    return Image.fromarray(truth_draws(name, np.array(Image.open(path)), 4, 0)[-1])


def test_the_truth_is_close_the_source_is_not_and_another_effect_is_recognised(
    tmp_path: Path, sources: list[Path]
) -> None:
    wrong = dict(zip(EFFECTS, (*EFFECTS[1:], EFFECTS[0]), strict=True))
    outputs = {
        "perfect": {name: [truth(name, path) for path in sources] for name in EFFECTS},
        "idle": {name: [Image.open(path) for path in sources] for name in EFFECTS},
        "confused": {name: [truth(wrong[name], path) for path in sources] for name in EFFECTS},
    }
    asked = request(tmp_path, sources, outputs)
    try:
        found = Closeness(draws=4)(asked)
    except MetricWeightsError as error:
        pytest.skip(str(error))
    for name in EFFECTS:
        assert found["perfect"][name].per_picture["closeness"] == pytest.approx([1.0, 1.0], abs=1e-3)
        assert found["perfect"][name].per_picture["nearest_is_right"] == [1.0, 1.0]
        assert found["idle"][name].per_picture["closeness"] == pytest.approx([0.0, 0.0], abs=1e-4)
        assert found["confused"][name].per_picture["nearest_is_right"] == [0.0, 0.0]
    assert asked.shares == [0.5, 1.0]


def test_blurred_outputs_have_less_detail_than_the_truth(tmp_path: Path, sources: list[Path]) -> None:
    sharp = {name: [truth(name, path) for path in sources] for name in EFFECTS}
    soft = {name: [p.filter(ImageFilter.GaussianBlur(2)) for p in pictures] for name, pictures in sharp.items()}
    found = HighFrequencyEnergy(draws=4)(request(tmp_path, sources, {"sharp": sharp, "soft": soft}))
    for name in EFFECTS:
        assert max(found["soft"][name].per_picture["hf_log_ratio"]) < -1
    assert found["sharp"]["halftone"].per_picture["hf_log_ratio"] == pytest.approx([0.0, 0.0], abs=1e-9)


def general_request(tmp_path: Path, sources: list[Path], outputs: Outputs) -> Request:
    """Two general items, of which only the first has a known result (the picture inverted)."""
    target = tmp_path / "inverted.png"
    Image.fromarray(255 - np.array(Image.open(sources[0]))).save(target)
    items = [
        Item("general/0", GENERAL, (sources[0],), "invert it", target),
        Item("general/1", GENERAL, (sources[1],), "do something", None),
    ]
    return Request([], {GENERAL: items}, outputs, tmp_path)


def test_retention_is_the_ratio_of_errors_on_the_items_with_a_known_result(tmp_path: Path, sources: list[Path]) -> None:
    inverted = 255 - np.array(Image.open(sources[0])).astype(int)
    shifted = {
        step: Image.fromarray((inverted + np.where(inverted < 128, step, -step)).astype(np.uint8)) for step in (10, 20)
    }
    other = Image.open(sources[1])
    outputs = {
        "base": {GENERAL: [shifted[10], other]},
        "student": {GENERAL: [shifted[20], other]},
        "teacher": {"halftone": [other]},
    }
    found = Retention()(general_request(tmp_path, sources, outputs))
    assert found.keys() == {"base", "student"}
    assert found["base"][GENERAL].summary["retention"] == pytest.approx(1.0)
    assert found["student"][GENERAL].summary["retention"] == pytest.approx(1 / 4)
    assert found["student"][GENERAL].per_picture["error"] == pytest.approx([(20 / 127.5) ** 2], rel=1e-4)


def test_retention_says_nothing_without_known_results(tmp_path: Path, sources: list[Path]) -> None:
    asked = general_request(tmp_path, sources, {"student": {GENERAL: [Image.open(p) for p in sources]}})
    assert Retention()(asked) == {}


def test_the_metrics_are_registered_with_what_they_need() -> None:
    parts = {part.name: part for part in register_metrics()}
    assert parts.keys() == {"closeness", "high-frequency-energy", "retention"}
    assert "lpips" in parts["closeness"].describe(parts["closeness"].settings()).packages
    assert parts["retention"].describe(parts["retention"].settings()).packages == ()
