"""Traps of peft and torch.compile, as measured: why batches are not mixed, and what keeps a compiled backbone compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from cldistill.adapters.slots import TEACHER, AdapterSlots
from cldistill.weights import AdapterState

Lora = Callable[..., AdapterState]
Forward = Callable[[], Tensor]
SWAPS = 6
LIMIT = 4
"""Graphs that dynamo makes of a function before it gives up; 8 unless a test says so, each of which takes seconds."""


def test_pefts_mixed_batches_are_not_for_training() -> None:
    """Why a batch has one teacher: peft's ``adapter_names``, an adapter an item, raises in train mode."""
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=2, target_modules=["0"]), "manga")
    model.add_adapter("gold", LoraConfig(r=2, target_modules=["0"]))
    names = ["manga", "gold"]
    with torch.no_grad():
        assert model.eval()(torch.ones(2, 4), adapter_names=names).shape == (2, 4)
    with pytest.raises(ValueError, match=r"`adapter_names` when .*training mode"):
        model.train()(torch.ones(2, 4), adapter_names=names)


def teachers(lora: Lora, targets: list[str]) -> list[AdapterState]:
    """LoRAs of different rank, alpha and coverage."""
    return [lora(targets[index % 3 :], rank=2 + index % 4, alpha=1.0 + index, seed=index) for index in range(SWAPS)]


def swapped(slots: AdapterSlots, forward: Forward, states: list[AdapterState]) -> list[Tensor]:
    """Student and each teacher in turn, as a DMD update calls them."""
    outputs = []
    with torch.no_grad():
        for state in states:
            slots.mount(state)
            for name in ("student", TEACHER):
                with slots.scope(name):
                    outputs.append(forward())
    return outputs


@pytest.mark.slow(11)
def test_replaced_teachers_cost_graphs_until_the_limit_and_stay_right(
    backbone: nn.Module, slots: AdapterSlots, forward: Forward, lora: Lora, targets: list[str]
) -> None:
    states = teachers(lora, targets)
    expected = swapped(slots, forward, states)
    made: list[object] = []
    torch._dynamo.reset()
    backbone.compile(backend=lambda graph, inputs: (made.append(graph), graph.forward)[1])
    with torch._dynamo.config.patch(recompile_limit=LIMIT):
        found = swapped(slots, forward, states)
    torch._dynamo.reset()
    assert len(made) >= LIMIT, "if this is few by now, teachers may be swapped under a compiled backbone"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
