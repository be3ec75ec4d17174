"""Traps of peft and torch.compile, as measured: why batches are not mixed, and what keeps a compiled backbone compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from cldistill.adapters.slots import TEACHER, AdapterSlots
from cldistill.errors import AdapterFormatError
from cldistill.weights import AdapterState, LokrWeights, LoraWeights

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


@pytest.fixture
def graphs(backbone: nn.Module) -> Iterator[list[object]]:
    """Compile the backbone in place; every graph that is made is in the list."""
    made: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    backbone.compile(backend=backend)
    yield made
    torch._dynamo.reset()


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
    assert len(made) >= LIMIT, "if this is few by now, padding the teacher slot is not needed any more"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow(5)
def test_a_padded_teacher_slot_is_one_graph_for_all_teachers(
    graphs: list[object], slots: AdapterSlots, forward: Forward, lora: Lora, targets: list[str]
) -> None:
    slots.add_teacher(targets, padded_rank=5)
    swapped(slots, forward, teachers(lora, targets))
    assert len(graphs) == 2, "the student's and the teacher's"


@pytest.mark.slow
def test_a_padded_teacher_slot_computes_what_a_replaced_one_does(
    slots: AdapterSlots, forward: Forward, lora: Lora, targets: list[str]
) -> None:
    states = teachers(lora, targets)
    expected = swapped(slots, forward, states)
    slots.add_teacher(targets, padded_rank=5)
    assert slots.mounted is None
    found = swapped(slots, forward, states)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    with torch.no_grad():
        slots.mount(None)
        with slots.scope(None):
            bare = forward()
        with slots.scope(TEACHER):
            assert torch.equal(forward(), bare), "nothing of the last teacher stays"


def test_what_a_padded_teacher_slot_cannot_hold_leaves_the_last_one_mounted(
    slots: AdapterSlots, lora: Lora, targets: list[str], shapes: dict[str, tuple[int, int]]
) -> None:
    slots.add_teacher(targets, padded_rank=3)
    kept = lora(targets, rank=3)
    slots.mount(kept)
    name = targets[0]
    out, wide = shapes[name]
    lokr = AdapterState({name: LokrWeights(torch.ones(1, 1), torch.ones(out, wide), 1.0)}, "test", "lokr")
    odd = AdapterState({name: LoraWeights(torch.ones(2, wide + 1), torch.ones(out, 2), 2.0)}, "test", "odd")
    for state, words in (
        (lora(targets, rank=4), "up to rank 3"),
        (lokr, "a LoKr"),
        (odd, "give an adapter that was trained on this base"),
    ):
        with pytest.raises(AdapterFormatError, match=words):
            slots.mount(state)
        assert slots.mounted == kept.digest
