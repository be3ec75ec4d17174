"""Trainable slots: switching that leaves ``requires_grad`` alone, deterministic starts, weights in and out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import AdapterSlots
from cldistill.errors import AdapterFormatError
from cldistill.testing.tiny import tiny_transformer
from cldistill.weights import AdapterState, LokrWeights

Forward = Callable[[], Tensor]
Shapes = dict[str, tuple[int, int]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def output(slots: AdapterSlots, forward: Forward, name: str | None) -> Tensor:
    with slots.scope(name), torch.no_grad():
        return forward()


def trained(slots: AdapterSlots, name: str) -> set[str]:
    return {key for key, parameter in slots.parameters(name).items() if parameter.grad is not None}


def test_student_has_gradients_after_a_teacher_forward(
    slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState], targets: list[str]
) -> None:
    # peft's set_adapter("teacher") would clear the student's requires_grad: every gradient None, without a word.
    slots.mount(lora(targets))
    with slots.scope("student"):
        student = forward()
    with slots.scope("teacher"), torch.no_grad():
        teacher = forward()
    with slots.scope("critic"):
        forward()
        (student - teacher).square().mean().backward()
    blocks = [key for key in slots.parameters("student") if "txt_mlp" not in key and "transformer_blocks.1" not in key]
    assert set(blocks) <= trained(slots, "student")
    assert not trained(slots, "critic")
    assert all(parameter.requires_grad for name in slots.names for parameter in slots.parameters(name).values())


def test_only_slots_are_trainable(slots: AdapterSlots, backbone: nn.Module, lora: Callable[..., AdapterState]) -> None:
    slots.mount(lora(["proj_out"]))  # wraps one more module: peft marks what it injects, and what it finds
    own = {id(parameter) for name in slots.names for parameter in slots.parameters(name).values()}
    assert {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad} == own
    assert {parameter.dtype for name in slots.names for parameter in slots.parameters(name).values()} == {torch.float32}


def test_scopes_nest_and_survive_errors(slots: AdapterSlots, forward: Forward) -> None:
    bare, student, critic = (output(slots, forward, name) for name in (None, "student", "critic"))
    assert not torch.equal(bare, student)
    assert not torch.equal(student, critic)
    with slots.scope("student"):
        with slots.scope("critic"):
            with slots.scope(None):
                assert torch.equal(output(slots, forward, None), bare)
                assert slots.active is None
            assert slots.active == "critic"
            with torch.no_grad():
                assert torch.equal(forward(), critic)
        with pytest.raises(RuntimeError, match="inside"), slots.scope("critic"):
            raise RuntimeError("inside")
        assert slots.active == "student"
        with torch.no_grad():
            assert torch.equal(forward(), student)
        with pytest.raises(ValueError, match="did you mean 'critic'"), slots.scope("critc"):
            pass
        assert slots.active == "student"
    assert slots.active is None


def test_wrapping_more_modules_later_leaves_older_layers_switchable(
    slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState]
) -> None:
    # peft's injection activates its new adapter in *all* layers, cutting the older ones off from our switch.
    student = output(slots, forward, "student")
    slots.add("late", ["img_in"], 2, 2.0, generator())
    slots.mount(lora(["proj_out"]))
    assert torch.equal(output(slots, forward, "student"), student)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["a", "teacher_b", "a.b", "keys", "7", "student x"])
def test_names_do_not_collide(first: str, backbone: nn.Module, forward: Forward, targets: list[str]) -> None:
    # peft's hot-swap finds adapters by substring: swapping "teacher" zeroes "teacher_b".
    slots = AdapterSlots(backbone)
    other = {"a.b": "a_b", "a": "aa"}.get(first, "teacher_bb")
    slots.add(first, targets, 2, 2.0, generator(1))
    slots.add(other, targets, 2, 2.0, generator(2))
    with torch.no_grad():
        for parameter in slots.parameters(first).values():
            parameter.fill_(0.05)
    mine = output(slots, forward, first)
    slots.mount(None)
    slots.remove(other)
    assert torch.equal(output(slots, forward, first), mine)
    assert slots.names == (first,)


def test_names_are_taken_once(slots: AdapterSlots, targets: list[str]) -> None:
    for name in ("student", "teacher"):
        with pytest.raises(ValueError, match="is taken"):
            slots.add(name, targets, 2, 2.0, generator())


def test_unknown_target_gets_the_nearest(slots: AdapterSlots) -> None:
    with pytest.raises(
        AdapterFormatError, match=r"no linear module 'transformer_blocks\.0\.attn\.to_qq'.*did you mean"
    ):
        slots.add("third", ["transformer_blocks.0.attn.to_qq"], 2, 2.0, generator())
    assert slots.names == ("student", "critic")


def test_a_fresh_slot_is_the_bare_base_and_global_random_state_is_untouched(
    slots: AdapterSlots, forward: Forward, targets: list[str]
) -> None:
    before = torch.get_rng_state()
    slots.add("fresh", targets, 4, 4.0, generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(output(slots, forward, "fresh"), output(slots, forward, None))


def test_the_start_depends_on_the_generator_alone(targets: list[str]) -> None:
    states = []
    for names in (["x"], ["y", "z", "x"]):
        slots = AdapterSlots(tiny_transformer())
        for index, name in enumerate(names):
            order = targets if index == 0 else list(reversed(targets))
            slots.add(name, order, 4, 4.0, generator(5 if name == "x" else index))
        states.append(slots.state("x"))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    a = states[0]["transformer_blocks.0.attn.to_q.lora_A.weight"]
    assert a.shape == (4, 32)
    assert 0.9 * 32**-0.5 < a.abs().max() <= 32**-0.5  # Kaiming-uniform with a = sqrt(5): bound 1 / sqrt(in)


def test_state_is_a_copy_and_load_keeps_the_parameters(slots: AdapterSlots, forward: Forward) -> None:
    state = slots.state("student")
    want = output(slots, forward, "student")
    parameters = slots.parameters("student")
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.zero_()
    slots.load("student", state)
    assert all(slots.parameters("student")[key] is parameter for key, parameter in parameters.items())
    assert torch.equal(output(slots, forward, "student"), want)


def test_load_refuses_what_does_not_fit(slots: AdapterSlots) -> None:
    state = slots.state("student")
    key = "transformer_blocks.0.attn.to_q.lora_A.weight"
    before = slots.state("student")
    with pytest.raises(AdapterFormatError, match="are missing"):
        slots.load("student", {k: v for k, v in state.items() if k != key})
    with pytest.raises(AdapterFormatError, match="are not the slot's"):
        slots.load("student", state | {"aa.lora_A.weight": state[key]})
    with pytest.raises(AdapterFormatError, match=r"\(2, 32\), the slot's \(4, 32\)"):
        slots.load("student", {k: v + 1 for k, v in state.items()} | {key: torch.ones(2, 32)})
    assert all(torch.equal(before[k], v) for k, v in slots.state("student").items())  # nothing is loaded in part


def test_copy_makes_the_same_network_at_another_alpha(
    slots: AdapterSlots, forward: Forward, targets: list[str]
) -> None:
    slots.add("twin", targets, 4, 2.0, generator(9))
    slots.copy("student", "twin")
    assert (slots.rank("twin"), slots.alpha("twin"), slots.targets("twin")) == (4, 2.0, tuple(sorted(targets)))
    torch.testing.assert_close(output(slots, forward, "twin"), output(slots, forward, "student"))
    with pytest.raises(AdapterFormatError, match="rank"):
        slots.copy("student", "critic")


def test_start_from_a_smaller_lora(
    slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState], targets: list[str]
) -> None:
    small = lora(targets[:5], rank=3, alpha=7.0)
    slots.add("grown", targets, 8, 4.0, generator(3))
    slots.start_from("grown", small)
    slots.mount(small)
    torch.testing.assert_close(output(slots, forward, "grown"), output(slots, forward, "teacher"))


def test_start_from_refuses_what_it_cannot_hold(
    slots: AdapterSlots, lora: Callable[..., AdapterState], targets: list[str]
) -> None:
    with pytest.raises(AdapterFormatError, match="set the slot's rank to 6 or more"):
        slots.start_from("student", lora(targets, rank=6))
    with pytest.raises(AdapterFormatError, match="does not adapt 'proj_out'"):
        slots.start_from("student", lora(["proj_out"]))
    kron = AdapterState({targets[0]: LokrWeights(torch.ones(6, 2), torch.ones(32, 16), 1.0)}, "kron", "kron")
    with pytest.raises(AdapterFormatError, match="LoKr"):
        slots.start_from("student", kron)


def test_removing_and_releasing(slots: AdapterSlots, backbone: nn.Module, forward: Forward, shapes: Shapes) -> None:
    bare, student = output(slots, forward, None), output(slots, forward, "student")
    slots.remove("critic")
    assert torch.equal(output(slots, forward, "student"), student)
    assert not [name for name, _ in backbone.named_parameters() if "critic" in name]
    with slots.scope("student"), pytest.raises(ValueError, match="leave its scope"):
        slots.remove("student")
    with pytest.raises(ValueError, match="carries adapters already"):
        AdapterSlots(backbone)
    assert linear_shapes(backbone) == shapes  # wrapped modules are seen as what they wrap
    slots.release()
    assert torch.equal(forward(), bare)
    assert not [name for name, _ in backbone.named_parameters() if "lora" in name or "base_layer" in name]
    AdapterSlots(backbone)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [True, False])
def test_fp32_slots_on_a_bf16_base(autocast: bool, targets: list[str], lora: Callable[..., AdapterState]) -> None:
    backbone = tiny_transformer().to(torch.bfloat16)
    slots = AdapterSlots(backbone)
    slots.add("student", targets, 4, 4.0, generator())
    slots.mount(lora(targets))
    dtype = torch.float32 if autocast else torch.bfloat16
    for name in ("student", "teacher"):
        with slots.scope(name), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = backbone(
                hidden_states=torch.ones(1, 16, 64, dtype=dtype), encoder_hidden_states=torch.ones(1, 5, 32, dtype=dtype),
                timestep=torch.full((1,), 0.5, dtype=dtype), img_shapes=[[(1, 4, 4)]], return_dict=False,
            )[0]  # fmt: skip
        if name == "student":
            result.float().square().mean().backward()
    gradient = slots.parameters("student")["transformer_blocks.0.attn.to_q.lora_B.weight"].grad
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert gradient.abs().sum() > 0
