"""Gradient checkpointing: the recompute runs under the adapter of its forward, whatever is active at backward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cldistill.adapters.slots import AdapterSlots
from cldistill.weights import AdapterState

Forward = Callable[[], Tensor]
Grads = dict[tuple[str, str], Tensor]


def gradients(slots: AdapterSlots, forward: Forward, at_backward: str | None) -> Grads:
    """Gradients of student and critic, both graphs alive before the first backward, under another active adapter."""
    for name in slots.names:
        for parameter in slots.parameters(name).values():
            parameter.grad = None
    with slots.scope("student"):
        student = forward()
    with slots.scope("critic"):
        critic = forward()
    with slots.scope(at_backward):
        student.square().mean().backward()
    with slots.scope(at_backward):
        critic.pow(4).mean().backward()
    parameters = [(name, key, p) for name in slots.names for key, p in slots.parameters(name).items()]
    return {(name, key): p.grad.clone() for name, key, p in parameters if p.grad is not None}


def checkpointing(backbone: nn.Module, run: Callable[..., object]) -> None:
    assert isinstance(backbone, QwenImageTransformer2DModel)
    backbone.enable_gradient_checkpointing(run)


@pytest.mark.slow
@pytest.mark.parametrize("at_backward", [None, "teacher", "critic", "student"])
def test_pinned_recompute_gives_the_same_gradients(
    at_backward: str | None, slots: AdapterSlots, backbone: nn.Module, forward: Forward, targets: list[str],
    lora: Callable[..., AdapterState],
) -> None:  # fmt: skip
    slots.mount(lora(targets))
    want = gradients(slots, forward, at_backward)
    checkpointing(backbone, slots.run_pinned)
    got = gradients(slots, forward, at_backward)
    assert got.keys() == want.keys()
    assert len(want) > len(targets)
    for key, gradient in want.items():
        assert torch.equal(got[key], gradient), key
    assert slots.active is None


def test_without_the_pin_gradients_are_silently_wrong(
    slots: AdapterSlots, backbone: nn.Module, forward: Forward, targets: list[str]
) -> None:
    # The trap itself: plain checkpointing, the student's graph recomputed under a rival of the same rank.
    slots.remove("critic")
    slots.add("rival", targets, 4, 8.0, torch.Generator().manual_seed(7))
    slots.copy("student", "rival")
    with torch.no_grad():
        for parameter in slots.parameters("rival").values():
            parameter.mul_(1.5)
    parameter = slots.parameters("student")["transformer_blocks.0.attn.to_q.lora_B.weight"]

    def gradient() -> Tensor:
        with slots.scope("student"):
            result = forward()
        with slots.scope("rival"):
            return torch.autograd.grad(result.square().mean(), parameter)[0]

    want = gradient()
    checkpointing(backbone, partial(checkpoint, use_reentrant=False))
    assert not torch.allclose(gradient(), want)
    checkpointing(backbone, slots.run_pinned)
    assert torch.equal(gradient(), want)


@pytest.mark.slow
@pytest.mark.parametrize("pinned", [True, False])
def test_a_teachers_graph_outlives_its_mount(
    pinned: bool, slots: AdapterSlots, backbone: nn.Module, forward: Forward, targets: list[str],
    lora: Callable[..., AdapterState],
) -> None:  # fmt: skip
    # Gradients through the teacher (to the input here), when the next teacher is mounted before backward.
    first, second = lora(targets, seed=1), lora(targets[:3], rank=5, seed=50)
    x = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    block = backbone.get_submodule("transformer_blocks.0.attn.to_q")
    run: Callable[..., Tensor] = slots.run_pinned if pinned else lambda function, x: function(x)

    def gradient(after: AdapterState | None) -> Tensor:
        slots.mount(first)
        with slots.scope("teacher"):
            result = run(block, x)
        slots.mount(after)
        (found,) = torch.autograd.grad(result.square().sum(), x)
        assert slots.mounted == (None if after is None else after.digest)
        return found

    want = gradient(first)
    assert torch.equal(gradient(second), want)
    assert torch.equal(gradient(None), want)


def test_keyword_arguments_pass_through(slots: AdapterSlots) -> None:
    x = torch.ones(3, requires_grad=True)
    slots.run_pinned(torch.mul, x, other=torch.tensor(2.0)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((3,), 2.0))
