"""Several slots at once: the deltas of their weights add up, and one alone is what it always was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from cldistill.adapters.slots import AdapterSlots
from cldistill.weights import AdapterState, LoraWeights

Forward = Callable[[], Tensor]
Lora = Callable[..., AdapterState]


def output(slots: AdapterSlots, forward: Forward, *names: str) -> Tensor:
    with slots.scope(None, *names), torch.no_grad():
        return forward()


def with_deltas(backbone: nn.Module, forward: Forward, *states: AdapterState) -> Tensor:
    """The output of the bare backbone with the deltas of all states added to its weights by hand."""
    kept = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        for state in states:
            for name, weights in state.modules.items():
                weight = backbone.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                assert isinstance(weights, LoraWeights)
                weight += weights.alpha / weights.rank * weights.up @ weights.down
        made = forward()
    backbone.load_state_dict(kept)
    return made


def test_two_mounted_adapters_equal_the_sum_of_their_deltas(
    backbone: nn.Module, forward: Forward, targets: list[str], lora: Lora
) -> None:
    one, two = lora(targets, rank=3, alpha=6.0), lora([*targets[2:], "proj_out"], rank=5, alpha=2.0, seed=50)
    want, alone = with_deltas(backbone, forward, one, two), with_deltas(backbone, forward, one)
    slots = AdapterSlots(backbone)
    slots.mount(one)
    slots.mount(two, "beside")
    torch.testing.assert_close(output(slots, forward, "teacher", "beside"), want, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(output(slots, forward, "beside", "teacher"), want, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(output(slots, forward, "teacher"), alone, rtol=2e-4, atol=2e-4)
    slots.mount(None, "beside")
    torch.testing.assert_close(output(slots, forward, "teacher", "beside"), alone, rtol=2e-4, atol=2e-4)


def test_a_trained_slot_may_work_beside_a_mounted_one(
    slots: AdapterSlots, forward: Forward, targets: list[str], lora: Lora
) -> None:
    state = lora(targets)
    student = slots.state("student")
    delta = {
        name: LoraWeights(student[f"{name}.lora_A.weight"], student[f"{name}.lora_B.weight"], slots.alpha("student"))
        for name in targets
    }
    slots.mount(state, "beside")
    both = output(slots, forward, "student", "beside")
    slots.mount(AdapterState(delta, "student", "student"))
    torch.testing.assert_close(output(slots, forward, "teacher", "beside"), both)
    assert not torch.allclose(both, output(slots, forward, "student"), atol=1e-3)


def test_scopes_of_several_nest_and_say_their_names(slots: AdapterSlots) -> None:
    with slots.scope("student", "beside"):
        assert slots.active == "student+beside"
        with slots.scope("critic"):
            assert slots.active == "critic"
        assert slots.active == "student+beside"
    assert slots.active is None


def test_a_pinned_recompute_keeps_both(
    slots: AdapterSlots, backbone: nn.Module, forward: Forward, targets: list[str], lora: Lora
) -> None:
    def gradient() -> Tensor:
        slots.mount(lora(targets, seed=3), "beside")
        with slots.scope("student", "beside"):
            loss = forward().square().mean()
        slots.mount(None, "beside")
        parameter = slots.parameters("student")[f"{targets[0]}.lora_B.weight"]
        parameter.grad = None
        loss.backward()
        assert parameter.grad is not None
        return parameter.grad.clone()

    want = gradient()
    assert isinstance(backbone, QwenImageTransformer2DModel)
    backbone.enable_gradient_checkpointing(slots.run_pinned)
    assert torch.equal(gradient(), want)
    assert slots.mounted is None


def test_only_frozen_slots_are_mounted(slots: AdapterSlots, targets: list[str], lora: Lora) -> None:
    with pytest.raises(ValueError, match="frozen slot"):
        slots.mount(lora(targets), "student")
    with pytest.raises(ValueError, match="taken"):
        slots.add("beside", targets, 2, 2.0, torch.Generator())
