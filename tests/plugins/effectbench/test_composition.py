"""Compositions: their truth, what counts as success, and the measurement of known outputs."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cldistill_plugins.effectbench import composition as command
from cldistill_plugins.effectbench.bank import apply, truth_draws
from cldistill_plugins.effectbench.composed_measure import TRUTH, CompositionJudge, summarise
from cldistill_plugins.effectbench.composed_truth import composed_draws, judge
from cldistill_plugins.evaluation.compositions import TOGETHER, Composed, Pair

torch.set_num_threads(1)
FIRST, SECOND = "mosaic", "halftone"


@pytest.fixture
def pixels() -> np.ndarray:
    blocks = np.random.default_rng(3).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), dtype=np.uint8))


def test_the_truth_is_one_effect_after_the_other(pixels: np.ndarray) -> None:
    (found,) = composed_draws(FIRST, SECOND, pixels, draws=3)
    assert np.array_equal(found, apply(SECOND, apply(FIRST, pixels)))


@pytest.mark.parametrize(
    ("first", "second"), [("party-frame", "mosaic"), ("mosaic", "party-frame"), ("party-frame", "ink-hatching")]
)
def test_a_stochastic_effect_gives_as_many_truths_as_draws(pixels: np.ndarray, first: str, second: str) -> None:
    found = composed_draws(first, second, pixels, draws=3, seed=5)
    assert found.shape == (3, *pixels.shape) and len(np.unique(found, axis=0)) > 1
    assert np.array_equal(found, composed_draws(first, second, pixels, draws=3, seed=5))
    if first == "party-frame" and second == "mosaic":
        assert np.array_equal(found[1], apply("mosaic", truth_draws(first, pixels, 3, 5)[1]))


FAR = {"source": 3.0, "first": 3.0, "second": 3.0, "swapped": 3.0}


@pytest.mark.parametrize(
    ("rivals", "success", "both", "order"),
    [
        (FAR, 1.0, 1.0, 1.0),
        (FAR | {"swapped": 1.0}, 0.0, 1.0, 0.0),
        (FAR | {"second": 1.0}, 0.0, 0.0, 1.0),
        (FAR | {"source": 2.0}, 0.0, 0.0, 1.0),
        (FAR | {"swapped": 2.0}, 1.0, 1.0, None),
    ],
)
def test_what_counts(rivals: dict[str, float], success: float, both: float, order: float | None) -> None:
    found = judge(2.0, rivals)
    assert (found.success, found.both_effects, found.distance) == (success, both, 2.0)
    assert math.isnan(found.order_right) if order is None else found.order_right == order


@pytest.fixture
def composed(pixels: np.ndarray, tmp_path: Path) -> Composed:
    """One picture; a system that applies both effects in the right order, and one that forgets the second."""
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    one, other = Pair(SECOND, FIRST), Pair(FIRST, SECOND)
    right = {pair: [Image.fromarray(apply(pair.second, apply(pair.first, pixels)))] for pair in (one, other)}
    half = {pair: [Image.fromarray(apply(pair.first, pixels))] for pair in (one, other)}
    return Composed(
        [tmp_path / "cat.png"], [other, one], {TOGETHER: 8, "forgetful": 8}, {TOGETHER: right, "forgetful": half},
        lambda pictures: list(pictures), tmp_path,
    )  # fmt: skip


@pytest.mark.slow
def test_known_outputs_are_judged_as_they_are(composed: Composed, tmp_path: Path) -> None:
    done: list[int] = []
    values = CompositionJudge(composed, tmp_path / "truths", draws=2).measure(done.append)
    assert set(values) == {TOGETHER, "forgetful", TRUTH} and sum(done) == 1
    for pair in composed.pairs:
        assert values[TRUTH][pair.name]["success"] == values[TRUTH][pair.name]["order_right"] == [1.0]
        assert values[TOGETHER][pair.name]["success"] == [1.0]
        assert values[TOGETHER][pair.name]["distance"][0] == pytest.approx(0.0, abs=1e-4)
        assert values["forgetful"][pair.name]["both_effects"] == [0.0]
    found = summarise(values)
    success = found[TOGETHER]["success"]
    assert (success["mean"], success["n"]) == (1.0, 1) and math.isnan(success["low"]) and math.isnan(success["high"])
    assert found["forgetful"]["success"]["mean"] == 0.0


@pytest.mark.slow
def test_the_command_writes_strict_json(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cldistill_plugins.evaluation.compositions.compose", lambda order, stages, stop: composed)
    output = tmp_path / "composition.json"
    monkeypatch.setattr(sys, "argv", ["composition", "quickstart", "--collection", "somewhere", "-o", str(output)])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert not left.value.code
    told = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["pairs"] == ["mosaic > halftone", "halftone > mosaic"] and told["pictures"] == ["cat"]
    assert [system["evaluations"] for system in told["systems"]] == [8, 8, None]
    assert told["not_run"][0]["why"] == "not asked for (--teachers)"
    assert told["summary"][TOGETHER]["success"] == {"mean": 1.0, "low": None, "high": None, "n": 1}
    shown = capsys.readouterr().out
    assert TOGETHER in shown and "no interval" in " ".join(shown.split()) and "nan" not in shown
