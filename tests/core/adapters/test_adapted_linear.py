"""The fused linear layer computes what peft's own does, forward and backward, and steps aside where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cldistill.adapters.adapted_linear import AdaptedLinear, FusedLora
from cldistill.adapters.slots import AdapterSlots
from cldistill.weights import AdapterState

Forward = Callable[[], Tensor]


def layers(backbone: nn.Module) -> list[Any]:
    return [module for module in backbone.modules() if isinstance(module, LoraLayer)]


def as_peft(backbone: nn.Module) -> None:
    for layer in layers(backbone):
        layer.__class__ = PeftLinear


def taught(slots: AdapterSlots, forward: Forward, precision: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the student's output and its gradients under an uneven loss."""
    with slots.scope("student"), torch.autocast("cpu", torch.bfloat16, enabled=precision):
        out = forward().float()
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).square().sum().backward()
    found = {
        name: parameter.grad.clone()
        for name, parameter in slots.parameters("student").items()
        if parameter.grad is not None
    }
    for parameter in slots.parameters("student").values():
        parameter.grad = None
    return out.detach(), found


def test_output_and_gradients_are_pefts(slots: AdapterSlots, forward: Forward, backbone: nn.Module) -> None:
    assert {type(layer) for layer in layers(backbone)} == {AdaptedLinear}
    fused, gradients = taught(slots, forward)
    as_peft(backbone)
    plain, expected = taught(slots, forward)
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected.keys()
    assert max(float(value.abs().max()) for value in expected.values()) > 0.1
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()), msg=name)


def test_under_autocast_it_stays_as_near_to_fp32_as_peft(
    slots: AdapterSlots, forward: Forward, backbone: nn.Module
) -> None:
    exact, exact_gradients = taught(slots, forward)
    fused, gradients = taught(slots, forward, precision=True)
    as_peft(backbone)
    plain, peft_gradients = taught(slots, forward, precision=True)
    assert (fused - exact).norm() < 1.5 * (plain - exact).norm()
    assert {value.dtype for value in gradients.values()} == {torch.float32}

    def error(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - value).square().sum()) for name, value in exact_gradients.items())

    assert error(gradients) < 2 * error(peft_gradients)


def test_gradients_by_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, a, b = (draw(*shape).requires_grad_() for shape in ((5, 4), (2, 4), (3, 2)))
    w, bias = draw(3, 4), draw(3)
    torch.testing.assert_close(FusedLora.apply(x, w, bias, a, b, 0.5), x @ w.T + bias + 0.5 * x @ a.T @ b.T)
    assert torch.autograd.gradcheck(lambda x, a, b: FusedLora.apply(x, w, None, a, b, 0.5), (x, a, b))


class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the casts of matrices of a shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].shape == self.shape and args[0].dtype == torch.float32:
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_kept_copies_change_no_bit_and_are_made_once_an_update(
    slots: AdapterSlots, forward: Forward, backbone: nn.Module, targets: list[str]
) -> None:
    name = next(target for target in targets if target.endswith("img_mlp.net.2"))
    a = slots.parameters("student")[f"{name}.lora_A.weight"]
    alike = sum(v.shape == a.shape for v in slots.parameters("student").values())
    optimizer = torch.optim.SGD(slots.parameters("student").values(), lr=0.1)

    def run(keep: bool) -> tuple[list[Tensor], int]:
        for layer in layers(backbone):
            layer.keep_copies = keep
        found, made = [], 0
        for update in range(2):
            with Casts(tuple(a.shape)) as casts, slots.scope("student"), torch.autocast("cpu", torch.bfloat16):
                with torch.no_grad():
                    found.append(forward())
                found.append(forward())
            made += casts.count
            found[-1].float().square().sum().backward()
            if update == 0:
                optimizer.step()
                optimizer.zero_grad()
        found += [v.grad for v in slots.parameters("student").values() if v.grad is not None]
        optimizer.zero_grad()
        return found, made

    start = slots.state("student")
    cast, each = run(keep=False)
    slots.load("student", start)
    kept, once = run(keep=True)
    assert all(torch.equal(one, other) for one, other in zip(cast, kept, strict=True))
    assert not torch.equal(cast[1], cast[3])  # the update is seen
    assert (each, once) == (4 * alike, 2 * alike - 1)  # the last text tokens are not used: one weight never moves
    slots.remove("student")
    assert not any(layer.copies for layer in layers(backbone))


def test_a_frozen_teacher_alone_builds_no_graph(
    slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState], targets: list[str]
) -> None:
    slots.mount(lora(targets))
    with slots.scope("teacher"):
        out = forward()
    assert not out.requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["several", "none", "mixed dtypes"])
def test_what_it_cannot_take_goes_pefts_way(
    kind: str, slots: AdapterSlots, forward: Forward, lora: Callable[..., AdapterState], targets: list[str],
    backbone: nn.Module, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    slots.mount(lora(targets))
    names = {"several": ("teacher", "student"), "none": (None,), "mixed dtypes": ("student",)}[kind]
    if kind == "mixed dtypes":
        for parameter in slots.parameters("student").values():
            parameter.data = parameter.data.double()

    def run() -> Tensor:
        with slots.scope(*names), torch.no_grad():
            return forward()

    def never(*given: Any) -> Tensor:
        raise AssertionError("the fused product was used")

    with monkeypatch.context() as patch:
        patch.setattr(FusedLora, "apply", never)
        fused = run()
    as_peft(backbone)
    torch.testing.assert_close(fused, run(), rtol=0, atol=0)
