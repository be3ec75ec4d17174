"""The plan as data and as it is printed."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from cldistill.errors import ManifestError
from cldistill.manifest.check import validate
from cldistill.manifest.load import load_manifest
from cldistill_plugins.planning.calls import cycles
from cldistill_plugins.planning.fit import size
from cldistill_plugins.planning.plan import make_plan
from cldistill_plugins.planning.print import count, print_plan


def test_adapter_sizes_and_memory(world: Any) -> None:
    checked = world.check()
    plan = make_plan(checked)
    parameters = 8 * 4 * (64 + 64)  # rank x modules x (out + in)
    assert [(a.slot, a.modules, a.parameters, a.fp32_bytes) for a in plan.adapters] == [
        ("student", 4, parameters, 4 * parameters), ("critic", 4, parameters, 4 * parameters),
    ]  # fmt: skip
    training = {amount.name: amount.bytes for amount in plan.training}
    assert training["frozen backbone"] == 20_000
    assert training["student: weights, Adam (fp32)"] == training["critic: weights, Adam (fp32)"] == 12 * parameters
    assert training["gradients of the largest slot (fp32)"] == 4 * parameters
    assert training["student: EMA (fp32)"] == 4 * parameters
    assert "critic: EMA (fp32)" not in training
    assert training["teacher slot"] == 4 * 4 * (64 + 64) * 2  # rank 4, in the base's two bytes
    assert plan.peak_bytes == sum(training.values())


def test_prompts_and_triggers_are_in_the_plan(world: Any) -> None:
    effects = {effect.name: effect for effect in make_plan(world.check()).effects}
    assert effects["gold"].prompts.student == "trig-gold turn into gold"
    assert (effects["gold"].teacher, effects["gold"].teacher_rank, effects["gold"].pairs) == ("trained", 4, 2)


def test_equal_triggers_are_refused_before_anything_is_loaded(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = world.check()
    part = checked.prompts
    fixed = type("Fixed", (), {"isolate": lambda self, effect: dataclasses.replace(prompts, trigger="zx")})()
    prompts = make_plan(checked).effects[0].prompts
    component = dataclasses.replace(part.component, build=lambda settings, context: fixed)
    entry = dataclasses.replace(part.entry, component=component)
    checked = dataclasses.replace(checked, prompts=dataclasses.replace(part, entry=entry))
    with pytest.raises(ManifestError, match=r"manifest\.yaml:\d+: prompts: effects 'gold' and 'manga': triggers"):
        make_plan(checked)


def test_the_plan_prints_and_is_json(world: Any) -> None:
    plan = make_plan(world.check(files=False))
    console = Console(file=io.StringIO(), width=200)
    print_plan(plan, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in ("fakes (fake-plugins 1.0)", "trig-manga turn into manga", "35", "56", "Peak memory"):
        assert expected in text
    assert json.loads(json.dumps(plan.to_json()))["cycles"][0]["with_checkpointing"] == 56.0


def test_a_stream_is_counted_while_the_router_yields_it() -> None:
    phases = [
        "train.generator_steps=40",
        "router.options.mixed_until=10",
        "losses.bs-dmd.from_step=20",
        "slots.student.lr=1",
    ]
    phases += [f"{key}.from_step=20" for key in ("losses.ts-dmd", "losses.fake-score", "slots.critic")]
    checked = validate(load_manifest("quickstart", phases), files=False)
    found = [(cycle.stream, cycle.from_step, cycle.until_step) for cycle in make_plan(checked).cycles]
    assert found == [("mixed", 0, 10), ("effect", 10, 20), ("effect", 20, 40), ("general", 20, 40)]


def test_units() -> None:
    assert (size(2.36e9), size(512), count(1_179_648_000), count(20_430_000_000)) == (
        "2.4 GB",
        "512 B",
        "1.18 B",
        "20.4 B",
    )


def test_the_plan_of_the_paper() -> None:
    """From the config of Qwen-Image-Edit-2509 alone: 20.4 B parameters, 840 modules, 1.18 B LoRA parameters."""
    checked = validate(load_manifest("collectionlora-50"), files=False)
    plan = make_plan(checked)
    assert count(plan.base_parameters) == "20.4 B"
    assert [(a.modules, count(a.parameters)) for a in plan.adapters] == [(840, "1.18 B")] * 2
    assert size(plan.adapters[0].bf16_bytes) == "2.4 GB"
    assert {c.stream: (c.forwards, c.with_checkpointing) for c in cycles(checked)} == {
        "effect": (35.5, 51.5), "general": (30.5, 42.5),
    }  # fmt: skip
    assert len(plan.effects) == len({effect.prompts.trigger for effect in plan.effects}) == 50
    assert 80e9 < plan.peak_bytes < 95e9  # counted by hand: 89 GB with EMA and checkpointed activations
