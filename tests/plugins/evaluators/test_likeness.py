"""``likeness``: 1 for the own LoRA's picture, 0 for the unedited one, whatever the effect."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from cldistill.records import EffectInfo, Item
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill.testing.pictures import picture
from cldistill_plugins.evaluators.likeness import Likeness, distance, likeness, reference_system


def test_it_is_one_for_the_same_picture_and_nought_for_the_source() -> None:
    source = picture(1).resize((64, 64))
    own = ImageOps.invert(source)
    assert likeness(own, own, source) == 1.0
    assert likeness(source, own, source) == 0.0
    assert likeness(Image.blend(source, own, 0.5), own, source) == pytest.approx(0.5, abs=0.01)
    assert likeness(source, own, ImageOps.invert(own)) < 0.01
    assert math.isnan(likeness(own, source, source))


def test_the_distance_is_that_of_flat_colours() -> None:
    black, grey = Image.new("RGB", (50, 30)), Image.new("RGB", (80, 80), (51, 51, 51))
    assert distance(black, grey) == pytest.approx(0.2)


def test_the_reference_is_the_own_lora_at_most_steps() -> None:
    assert reference_system(dict.fromkeys(("base", "teacher@8", "teacher@40", "student@8"))) == "teacher@40"
    assert reference_system(dict.fromkeys(("teacher", "ours"))) == "teacher"
    assert reference_system(dict.fromkeys(("teachers", "ours"))) is None


def test_systems_are_measured_on_the_effects_that_both_made(tmp_path: Path) -> None:
    source = picture(1).resize((32, 32))
    source.save(tmp_path / "one.png")
    own = ImageOps.invert(source)
    items = {"invert": [Item("invert/one", "invert", (tmp_path / "one.png",), "invert it")]}
    outputs = {"teacher@4": {"invert": [own]}, "student@4": {"invert": [source], "general": [source]}}
    request = TinyMetricRequest([EffectInfo("invert", "invert it")], items, outputs, tmp_path)
    found = Likeness()(request)
    assert {system: set(pools) for system, pools in found.items()} == {"teacher@4": {"invert"}, "student@4": {"invert"}}
    assert found["student@4"]["invert"].per_picture["likeness"] == [pytest.approx(0.0, abs=0.01)]
    assert "likeness" not in found["teacher@4"]["invert"].per_picture


def test_the_way_from_the_source_needs_neither_own_lora_nor_truth(tmp_path: Path) -> None:
    source, made = Image.new("RGB", (32, 32)), Image.new("RGB", (32, 32), (51, 51, 51))
    source.save(tmp_path / "one.png")
    items = {"grey": [Item("grey/one", "grey", (tmp_path / "one.png",), "make it grey")]}
    outputs = {"ours": {"grey": [made], "general": [made]}, "idle": {"grey": [source]}}
    found = Likeness()(TinyMetricRequest([EffectInfo("grey", "make it grey")], items, outputs, tmp_path))
    far = {system: {pool: values.per_picture for pool, values in pools.items()} for system, pools in found.items()}
    assert far == {"ours": {"grey": {"from_source": [pytest.approx(0.2)]}}, "idle": {"grey": {"from_source": [0.0]}}}


def test_held_out_pairs_are_a_truth_that_needs_no_lora(tmp_path: Path) -> None:
    source = picture(1).resize((32, 32))
    truth = ImageOps.invert(source)
    source.save(tmp_path / "one.png")
    truth.save(tmp_path / "two.png")
    item = Item("invert/pairs/x", "invert/pairs", (tmp_path / "one.png",), "invert it", tmp_path / "two.png")
    outputs = {"ours": {"invert": [], "invert/pairs": [truth]}, "idle": {"invert": [], "invert/pairs": [source]}}
    request = TinyMetricRequest([EffectInfo("invert", "invert it")], {"invert/pairs": [item]}, outputs, tmp_path)
    ratios = {name: found["invert"].ratios["left_to_truth"] for name, found in Likeness()(request).items()}
    assert sum(ratios["ours"].numerator) == pytest.approx(0.0)
    assert sum(ratios["idle"].numerator) == pytest.approx(sum(ratios["idle"].denominator)) != 0
