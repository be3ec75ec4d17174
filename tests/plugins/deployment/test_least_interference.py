"""The grouper: gradients of a real (tiny) student, confusion of an evaluation, and the promises of its kind."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cldistill import testing
from cldistill.errors import DataError
from cldistill.records import EffectInfo
from cldistill.training.run import Run
from cldistill_plugins.deployment.confusion import confusion
from cldistill_plugins.deployment.gradients import Sketch, compare, flow_matching, gradient, measure
from cldistill_plugins.deployment.group_run import GroupRequest
from cldistill_plugins.deployment.least_interference import LeastInterference
from cldistill_plugins.deployment.settings import LeastInterferenceSettings

torch.set_num_threads(1)
EFFECTS = tuple(EffectInfo(name, f"turn it into {name}") for name in ("manga", "gold", "snow", "glass", "lego"))
NAMES = [effect.name for effect in EFFECTS]


def grouping_request(groups: int = 2, effects: Sequence[EffectInfo] = EFFECTS, run: Run | None = None) -> GroupRequest:
    """Return a request over small pictures of ``effects`` on a tiny base; ``run``: one that `tiny_run` made, instead."""

    def make() -> Run:
        tiny = run or testing.tiny_run(slots=("student",))
        dataset = testing.tiny_dataset(tiny.base, effects=effects)
        return replace(tiny, dataset=dataset, effects=tuple(effects), batch_size=2)

    return GroupRequest(effects, groups, make)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_groups_are_balanced_the_same_each_time_and_leave_the_run_as_it_was(groups: int) -> None:
    names = NAMES[:3]
    settings = LeastInterferenceSettings(batches=2, warm_up=1, starts=4)
    run = testing.tiny_run(slots=("student",))
    before, drawn = run.slots.state("student"), torch.random.get_rng_state()
    found = LeastInterference(settings).group(grouping_request(groups, EFFECTS[:3], run))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in run.slots.state("student").items())
    assert run.slots.active is None
    assert sorted(name for group in found.groups for name in group) == sorted(names)
    assert len(found.groups) == groups and 1 <= max(map(len, found.groups)) <= math.ceil(len(names) / groups)
    assert {name for row in (found.interference, *found.interference.values()) for name in row} == set(names)
    numbers = [value for row in found.interference.values() for value in row.values()]
    # `within` of groups of one is the mean of nothing.
    assert all(math.isfinite(number) for number in numbers) and found.measured
    assert LeastInterference(settings).group(grouping_request(groups, EFFECTS[:3])) == found


def test_the_gradient_is_that_of_the_student() -> None:
    request = grouping_request()
    run = request.run()
    context = request.update("gold", 3)
    found = gradient(run, context)
    flow_matching(request.update("gold", 3)).backward()  # type: ignore[no-untyped-call]
    parameters = run.slots.parameters("student").values()
    assert torch.equal(found, torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert bool(found.any())


def test_cosines_are_those_of_the_mean_gradients() -> None:
    request = grouping_request(effects=EFFECTS[:3])
    cosines, _ = measure(request, batches=2, warm_up=0, lr=1e-3, sketch=10**9)
    rows = [torch.stack([gradient(request.run(), request.update(n, i)) for i in range(2)]).mean(0) for n in NAMES[:3]]
    expected = torch.nn.functional.cosine_similarity(rows[0], rows[2], dim=0)
    assert float(cosines[0, 2]) == pytest.approx(float(expected), abs=1e-5)
    assert torch.allclose(cosines.diagonal(), torch.ones(3, dtype=cosines.dtype))


def test_an_effect_has_no_conflict_with_itself_and_all_with_its_opposite() -> None:
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 1, 50, generator=random)
    gradients = torch.stack([one, one, -one, other]).expand(-1, 4, -1)
    cosines, reliability = compare(gradients)
    assert cosines[0, 1] == pytest.approx(1.0) and cosines[0, 2] == pytest.approx(-1.0)
    assert abs(float(cosines[0, 3])) < 0.4 and reliability == pytest.approx(1.0)


def test_noise_is_not_reliable() -> None:
    noise = torch.randn(12, 6, 400, generator=torch.Generator().manual_seed(1))
    assert abs(compare(noise)[1]) < 0.5


def test_a_sketch_keeps_inner_products() -> None:
    random = torch.Generator().manual_seed(2)
    a = torch.randn(50_000, generator=random)
    b = 0.5 * a + torch.randn(50_000, generator=random)
    sketch = Sketch(50_000, 4096, seed=5)
    exact = torch.nn.functional.cosine_similarity(a, b, dim=0)
    kept = torch.nn.functional.cosine_similarity(sketch(a), sketch(b), dim=0)
    assert sketch(a).shape == (4096,) and float(kept) == pytest.approx(float(exact), abs=0.06)
    assert torch.equal(Sketch(10, 16)(a[:10]), a[:10])


def test_without_targets_it_says_what_is_missing() -> None:
    context = testing.update_context(targets=False)
    with pytest.raises(DataError, match="give its effects pairs"):
        flow_matching(context)


def evaluation(folder: Path) -> Path:
    """An evaluation whose system makes ``gold`` when asked for ``snow``, and is right otherwise."""
    colours = {"manga": 20, "gold": 120, "snow": 220}
    for effect, value in colours.items():
        for column, shown in (("truth", value), ("ours", 120 if effect == "snow" else value)):
            for key in ("a", "b"):
                path = folder / "pictures" / column / effect / f"{key}.webp"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 48), (shown, 40, 200)).save(path, lossless=True)
    report = {
        "format": 1, "name": "x", "effects": [{"name": name} for name in colours], "pictures": ["a", "b"],
        "systems": [{"name": "base"}, {"name": "ours"}], "metrics": {},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_confusion_counts_the_nearest_truth(tmp_path: Path) -> None:
    found = confusion(evaluation(tmp_path), ["manga", "gold", "snow"])
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_confused_effects_are_kept_apart(tmp_path: Path) -> None:
    def never() -> Run:
        raise AssertionError("an evaluation needs no run")

    settings = LeastInterferenceSettings(evaluation=evaluation(tmp_path))
    effects = [EffectInfo(name, name) for name in ("gold", "snow", "manga")]
    found = LeastInterference(settings).group(GroupRequest(effects, 2, never))
    together = next(group for group in found.groups if len(group) == 2)
    assert set(together) != {"gold", "snow"} and "nearest truth" in found.measured
    assert found.interference["gold"]["snow"] == found.interference["snow"]["gold"] == 0.5
    assert found.figures["within"] == 0.0 < found.figures["within_at_random"]


@pytest.mark.parametrize(
    ("effects", "system", "message"),
    [
        (["gld"], None, "did you mean 'gold'"),
        (["gold"], "urs", "did you mean 'ours'"),
        (["gold"], "base", "no output of 'base'"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_named(
    tmp_path: Path, effects: list[str], system: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        confusion(evaluation(tmp_path), effects, system)


def test_the_weights_are_put_back_after_an_error() -> None:
    run = replace(grouping_request().run())
    request = grouping_request(run=run)
    before = run.slots.state("student")

    def advance(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    request.advance = advance
    with pytest.raises(KeyboardInterrupt):
        measure(request, batches=2, warm_up=5, lr=1e-1, sketch=64)
    assert all(np.array_equal(value, before[name]) for name, value in run.slots.state("student").items())
