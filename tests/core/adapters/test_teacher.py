"""The teacher slot: any rank, alpha, kind and coverage, and nothing of the last teacher left."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cldistill.adapters.slots import AdapterSlots
from cldistill.errors import AdapterFormatError
from cldistill.weights import AdapterState, LokrWeights, LoraWeights

Forward = Callable[[], Tensor]
Shapes = dict[str, tuple[int, int]]


def teacher(slots: AdapterSlots, forward: Forward) -> Tensor:
    with slots.scope("teacher"), torch.no_grad():
        return forward()


def merged(backbone: nn.Module, forward: Forward, state: AdapterState) -> Tensor:
    """The output of the bare backbone with the adapter added to its weights."""
    kept = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        for name, weights in state.modules.items():
            weight = backbone.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            if isinstance(weights, LoraWeights):
                weight += weights.scale * weights.up @ weights.down
            else:
                weight += weights.scale * torch.kron(weights.w1, weights.w2)
        output = forward()
    backbone.load_state_dict(kept)
    return output


def lokr(shapes: Shapes, modules: list[str]) -> AdapterState:
    weights = {}
    for index, name in enumerate(modules):
        out, wide = shapes[name]
        generator = torch.Generator().manual_seed(index)
        w1, w2 = torch.randn(4, 2, generator=generator), torch.randn(out // 4, wide // 2, generator=generator)
        weights[name] = LokrWeights(0.3 * w1, 0.3 * w2, 0.7)
    return AdapterState(weights, "lokr", f"lokr {modules}")


@pytest.mark.slow
def test_every_kind_in_turn_and_nothing_stale(
    backbone: nn.Module, forward: Forward, shapes: Shapes, targets: list[str], lora: Callable[..., AdapterState]
) -> None:
    everything = list(shapes)
    states = [
        lora(everything, rank=8, alpha=4.0),
        lora([name for name in targets if "_mod" not in name], rank=2, alpha=16.0, seed=7),  # as musubi-tuner covers
        lokr(shapes, targets),
        lora(targets[3:4], rank=1, alpha=1.0, seed=9),
        lora(["img_in", "proj_out", "norm_out.linear"], rank=5, seed=11),
    ]
    want = [merged(backbone, forward, state) for state in states]
    bare = forward().detach()
    slots = AdapterSlots(backbone)
    slots.add("student", targets, 4, 4.0, torch.Generator().manual_seed(0))
    slots.add_teacher(everything)
    for index in (0, 1, 2, 3, 4, 2, 1, 0):
        slots.mount(states[index])
        torch.testing.assert_close(teacher(slots, forward), want[index], rtol=2e-4, atol=2e-4)
        with torch.no_grad():
            assert torch.equal(forward(), bare)  # out of its scope a teacher is not there
    slots.mount(None)
    assert slots.mounted is None
    assert torch.equal(teacher(slots, forward), bare)
    assert not [name for name, _ in backbone.named_parameters() if "teacher" in name]


def test_mixed_ranks_and_alphas_in_one_teacher(
    backbone: nn.Module, forward: Forward, targets: list[str], lora: Callable[..., AdapterState]
) -> None:
    parts = lora(targets[:4], rank=2, alpha=8.0), lora(targets[4:9], rank=6, alpha=3.0, seed=40)
    state = AdapterState({**parts[0].modules, **parts[1].modules}, "mixed", "mixed")
    want = merged(backbone, forward, state)
    slots = AdapterSlots(backbone)
    slots.mount(state)
    torch.testing.assert_close(teacher(slots, forward), want, rtol=2e-4, atol=2e-4)


def test_modules_that_no_slot_adapts_are_wrapped_when_mounted(
    slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState]
) -> None:
    with slots.scope("student"), torch.no_grad():
        student = forward()
    slots.mount(lora(["img_in", "proj_out"]))
    with slots.scope("student"), torch.no_grad():
        assert torch.equal(forward(), student)


def test_the_same_digest_is_free(
    slots: AdapterSlots, backbone: nn.Module, targets: list[str], lora: Callable[..., AdapterState]
) -> None:
    slots.mount(lora(targets))
    tensors = {name: parameter for name, parameter in backbone.named_parameters() if "teacher" in name}
    slots.mount(lora(targets))
    assert len(tensors) == 2 * len(targets)
    for name, parameter in backbone.named_parameters():
        assert name not in tensors or tensors[name] is parameter
    slots.mount(lora(targets).scaled(2.0))
    assert all(
        tensors.get(name) is not parameter for name, parameter in backbone.named_parameters() if "teacher" in name
    )


def test_a_failed_mount_leaves_the_slot_empty(
    slots: AdapterSlots, forward: Forward, targets: list[str], lora: Callable[..., AdapterState]
) -> None:
    with torch.no_grad():
        bare = forward()
    slots.mount(lora(targets))
    wrong = AdapterState({targets[0]: LoraWeights(torch.ones(2, 7), torch.ones(9, 2), 2.0)}, "wrong", "wrong")
    with pytest.raises(AdapterFormatError, match=r"the adapter is 9 x 7 \(out x in\)"):
        slots.mount(AdapterState({**lora(targets).modules, **wrong.modules}, "wrong", "wrong"))
    assert slots.mounted is None
    assert torch.equal(teacher(slots, forward), bare)
    with pytest.raises(AdapterFormatError, match="no linear module 'nowhere'"):
        slots.mount(AdapterState({"nowhere": wrong.modules[targets[0]]}, "x", "x"))


def test_teachers_are_never_trainable(
    slots: AdapterSlots, backbone: nn.Module, shapes: Shapes, targets: list[str], lora: Callable[..., AdapterState]
) -> None:
    for state in (lora(targets), lokr(shapes, targets)):
        slots.mount(state)
        mounted = [p for name, p in backbone.named_parameters() if "teacher" in name]
        assert len(mounted) == 2 * len(targets)
        assert not any(parameter.requires_grad for parameter in mounted)
        with pytest.raises(ValueError, match="no adapter slot 'teacher'"):
            slots.parameters("teacher")


def test_weights_trained_on_do_not_leak_into_a_mounted_copy(
    slots: AdapterSlots, forward: Forward, targets: list[str]
) -> None:
    state = slots.state("student")
    modules: dict[str, LoraWeights | LokrWeights] = {
        name: LoraWeights(state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], slots.alpha("student"))
        for name in targets
    }
    slots.mount(AdapterState(modules, "student", "student"))
    before = teacher(slots, forward)
    with slots.scope("student"), torch.no_grad():
        torch.testing.assert_close(forward(), before)
        for parameter in slots.parameters("student").values():
            parameter.add_(1.0)
    assert torch.equal(teacher(slots, forward), before)
