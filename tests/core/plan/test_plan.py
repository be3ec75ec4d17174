"""What a run costs: the paper's figures, from a description alone."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any

import pytest
from rich.console import Console

from cldistill.errors import ManifestError
from cldistill.manifest.check import validate
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.load import load_manifest
from cldistill.plan.costs import cycles, memory
from cldistill.plan.plan import make_plan
from cldistill.plan.print import count, print_plan, size


def costs(checked: CheckedManifest) -> dict[str, tuple[float, float]]:
    return {cycle.stream: (cycle.forwards, cycle.with_checkpointing) for cycle in cycles(checked)}


def test_forwards_of_a_cycle_as_the_paper_has_them(world: Any) -> None:
    """Counted by hand from arXiv 2605.25378, section 3: 40 and 35 calls, 56 with checkpointing counted."""
    assert costs(world.check()) == {"effect": (40.0, 56.0), "general": (35.0, 47.0)}


def test_reusing_the_sample_saves_a_rollout_and_its_call(world: Any) -> None:
    """Counted by hand: 35.5 and 30.5 calls, 51.5 with checkpointing counted."""
    checked = world.check("slots.critic.reuse_sample=true")
    assert costs(checked) == {"effect": (35.5, 51.5), "general": (30.5, 42.5)}


def test_one_trajectory_a_cycle_saves_all_but_its_continuation(world: Any) -> None:
    """Counted by hand: five updates on five of the eight steps; from 3.5 to the last of those, 6.5 in the mean, is 3 calls."""
    checked = world.check("slots.critic.reuse_sample=trajectory")
    assert costs(checked) == {"effect": (20.5, 36.5), "general": (15.5, 27.5)}
    all_eight = world.check("slots.critic.reuse_sample=trajectory", "slots.critic.updates=20")
    assert costs(all_eight)["effect"][0] == 20.5 + 15 + 0.5


def test_no_guidance_makes_the_teacher_cost_one_call(world: Any) -> None:
    assert costs(world.check("base.options.guidance=1"))["effect"][0] == 38.0


def test_more_steps_lengthen_the_rollout(world: Any) -> None:
    assert costs(world.check("sampler.steps=4"))["general"][0] == 35.0 - 6 * 2.0


def test_phases_are_cut_where_losses_and_slots_begin_and_end(world: Any) -> None:
    world.data["losses"] = [
        {"use": "fm", "streams": ["effect"], "until_step": 60},
        {"use": "bs", "from_step": 60},
        {"use": "score"},
    ]
    world.data["slots"]["critic"] |= {"from_step": 60, "init": "slot:student"}
    found = {(c.from_step, c.until_step, c.stream): (c.forwards, dict(c.updates)) for c in cycles(world.check())}
    assert found == {
        (0, 60, "effect"): (1.0, {"student": 1}),
        (60, 100, "effect"): (35.0, {"student": 1, "critic": 5}),
        (60, 100, "general"): (35.0, {"student": 1, "critic": 5}),
    }


def test_adapter_sizes_and_memory(world: Any) -> None:
    checked = world.check()
    plan = make_plan(checked)
    parameters = 8 * 4 * (64 + 64)  # rank x modules x (out + in)
    assert [(a.slot, a.modules, a.parameters, a.fp32_bytes) for a in plan.adapters] == [
        ("student", 4, parameters, 4 * parameters), ("critic", 4, parameters, 4 * parameters),
    ]  # fmt: skip
    training = {amount.name: amount.bytes for amount in plan.training}
    assert training["frozen backbone"] == 20_000
    assert training["student: weights, gradients, Adam (fp32)"] == 16 * parameters
    assert training["student: EMA (fp32)"] == 4 * parameters
    assert "critic: EMA (fp32)" not in training
    assert training["teacher slot"] == 4 * 4 * (64 + 64) * 2  # rank 4, in the base's two bytes
    assert plan.peak_bytes == sum(training.values())


def test_checkpointing_shrinks_the_activations(world: Any) -> None:
    plain, saved = (
        memory(world.check(f"train.gradient_checkpointing={on}"))[1][-1].bytes for on in ("false", "true")
    )  # fmt: skip
    assert saved < plain


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
    assert costs(checked) == {"effect": (35.5, 51.5), "general": (30.5, 42.5)}
    assert len(plan.effects) == len({effect.prompts.trigger for effect in plan.effects}) == 50
    assert 80e9 < plan.peak_bytes < 95e9  # counted by hand: 89 GB with EMA and checkpointed activations
