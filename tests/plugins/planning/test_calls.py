"""The backbone calls of a run: the paper's figures, from a description alone."""

from __future__ import annotations

from typing import Any

from cldistill.manifest.checked import CheckedManifest
from cldistill_plugins.planning.calls import cycles
from cldistill_plugins.planning.hours import stages
from cldistill_plugins.planning.memory import activations


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


def test_a_global_batch_is_done_in_parts_that_take_the_memory_of_one(world: Any) -> None:
    """Eight items an update, one at once: eight times the calls, and the activations of one item."""
    whole, parts = world.check("train.batch_size=8"), world.check("train.global_batch=8")
    assert costs(parts) == {"effect": (320.0, 448.0), "general": (280.0, 376.0)}
    assert sum(stage.calls for stage in stages(parts)) == sum(stage.calls for stage in stages(whole))
    assert activations(parts).bytes == activations(world.check()).bytes == activations(whole).bytes / 8
