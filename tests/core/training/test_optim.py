"""Learning-rate phases, EMA warm-up and the round trip of an optimiser's state."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cldistill.errors import CheckpointError
from cldistill.training import checkpoint
from cldistill.training.optim import Optimizer, ema_decay, learning_rate
from cldistill.training.run import LrPhase, SlotConfig


def test_phases_warm_up_hold_and_decay() -> None:
    phases = (LrPhase(0, 1.0, end_lr=0.0, warmup=2), LrPhase(10, 0.5))
    rates = [learning_rate(phases, step, 20) for step in range(20)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[1] == pytest.approx(1.0)
    assert rates[2] == pytest.approx(1.0)
    assert rates[6] == pytest.approx(0.5)
    assert rates[9] < 0.05
    assert rates[10:] == [0.5] * 10


def test_a_young_average_follows_and_an_old_one_holds() -> None:
    assert ema_decay(0.999, 1) == pytest.approx(2 / 11)
    assert ema_decay(0.999, 100_000) == 0.999
    # With 0.999 from the start, 100 steps would keep 90 % of the first weights.
    held = 1.0
    for update in range(1, 101):
        held *= ema_decay(0.999, update)
    assert held < 1e-6


def _optimizer(
    ema: float | None = 0.9, device: str | None = None, on: str = "cpu", moments: Literal["8bit"] | None = None,
    wide: int = 3,
) -> Optimizer:  # fmt: skip
    torch.manual_seed(0)
    parameters = {
        "a.lora_A.weight": nn.Parameter(torch.randn(2, wide).to(on)),
        "a.lora_B.weight": nn.Parameter(torch.zeros(3, 2).to(on)),
        "unreached.lora_A.weight": nn.Parameter(torch.randn(2, 3).to(on)),  # no loss depends on it
    }
    config = SlotConfig(
        "student", 2, 2.0, (LrPhase(0, 0.1),), weight_decay=0.01, ema=ema, ema_device=device, moments=moments
    )
    return Optimizer(config, parameters)


def _train(optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        for index, (name, parameter) in enumerate(optimizer.parameters.items()):
            if not name.startswith("unreached"):
                parameter.grad = torch.full_like(parameter, 0.1 * step + index + 1)
        optimizer.apply(0.1)


@pytest.mark.parametrize("moments", [None, "8bit"])
def test_a_restored_optimiser_goes_on_bit_for_bit(moments: Literal["8bit"] | None, tmp_path: Path) -> None:
    if moments is not None:
        pytest.importorskip("torchao")
    unbroken, first, second = (_optimizer(moments=moments, wide=2048) for _ in range(3))
    _train(unbroken, range(6))
    _train(first, range(3))
    with torch.no_grad():
        for name, parameter in second.parameters.items():
            parameter.copy_(first.parameters[name])
    assert not any(name.startswith("unreached") for name in first.state())
    saved = checkpoint.save(tmp_path / "first", 3, {"optimizer-student": first.state()}, {}, 1)
    second.load(checkpoint.read(saved).load("optimizer-student"))
    again = checkpoint.save(tmp_path / "again", 3, {"optimizer-student": second.state()}, {}, 1)
    assert all(file.read_bytes() == (again / file.name).read_bytes() for file in saved.iterdir())
    assert first.average is not None
    second.average = {name: value.clone() for name, value in first.average.items()}
    _train(second, range(3, 6))
    assert unbroken.average is not None
    for name, parameter in unbroken.parameters.items():
        assert torch.equal(parameter, second.parameters[name])
        assert torch.equal(unbroken.average[name], second.average[name])
    for name, value in unbroken.state().items():
        assert torch.equal(value, second.state()[name])


def test_moments_in_8_bits_take_a_quarter_and_lead_nearly_where_exact_ones_do() -> None:
    pytest.importorskip("torchao")
    exact, coarse = _optimizer(wide=2048), _optimizer(moments="8bit", wide=2048)
    for optimizer in (exact, coarse):
        _train(optimizer, range(4))
    size = {name: value.nbytes for name, value in coarse.state().items() if name.startswith("a.lora_A.weight.exp_avg.")}
    assert size == {
        "a.lora_A.weight.exp_avg.codes": 4096, "a.lora_A.weight.exp_avg.scale": 64, "a.lora_A.weight.exp_avg.qmap": 1024,
    }  # fmt: skip
    assert exact.state()["a.lora_A.weight.exp_avg"].nbytes == 4 * 4096
    for name, value in exact.parameters.items():
        moved = (value - _optimizer(wide=2048).parameters[name]).abs().mean()
        assert (moved > 0) is not name.startswith("unreached")
        assert (coarse.parameters[name] - value).abs().mean() <= 0.02 * moved


def test_moments_of_other_bits_are_refused() -> None:
    pytest.importorskip("torchao")
    exact, coarse = _optimizer(wide=2048), _optimizer(moments="8bit", wide=2048)
    _train(exact, range(1))
    with pytest.raises(CheckpointError, match="moments in other bits"):
        coarse.load(exact.state())


def test_without_ema_there_is_no_average() -> None:
    assert _optimizer(ema=None).average is None


def test_an_average_in_the_hosts_memory_is_the_same() -> None:
    beside, away = _optimizer(), _optimizer(device="cpu")
    for optimizer in (beside, away):
        _train(optimizer, range(3))
    assert beside.average is not None and away.average is not None
    assert all(torch.equal(value, away.average[name]) for name, value in beside.average.items())


def test_on_a_gpu_adamw_is_fused_and_the_average_may_lie_in_the_hosts_memory() -> None:
    with FakeTensorMode():
        optimizer = _optimizer(device="cpu", on="cuda")
        _train(optimizer, range(2))
        assert optimizer.adamw.defaults["fused"]
        assert {value.device.type for value in optimizer.average.values()} == {"cpu"}  # type: ignore[union-attr]
        again = _optimizer(device="cpu", on="cuda")
        again.load({name: value.cpu() for name, value in optimizer.state().items() if name != "updates"}
                   | {"updates": torch.tensor(2)})  # fmt: skip
        assert {value.device.type for name, value in again.state().items() if name != "updates"} == {"cuda"}
    assert _optimizer().adamw.defaults["fused"] is None
