"""Identities of the flow maths, and equality with diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from cldistill.schedule import Schedule, add_noise, shift_sigma, to_x0, unshift_sigma, velocity


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 6, 3, generator=generator), torch.randn(4, 6, 3, generator=generator)


def test_the_true_velocity_gives_back_x0_at_every_sigma(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    x0, noise = pair
    sigma = torch.tensor([0.0, 0.3, 0.75, 1.0])
    x = add_noise(x0, noise, sigma)
    assert torch.allclose(to_x0(x, velocity(x0, noise), sigma), x0, atol=1e-6)
    assert torch.equal(x[0], x0[0])
    assert torch.equal(x[3], noise[3])


def test_shift_keeps_the_ends_and_is_inverted() -> None:
    sigma = torch.linspace(0, 1, 11, dtype=torch.float64)
    shifted = shift_sigma(sigma, 3.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert bool((shifted[1:-1] > sigma[1:-1]).all())
    assert torch.allclose(unshift_sigma(shifted, 3.0), sigma)
    assert torch.equal(shift_sigma(sigma, 1.0), sigma)


def test_the_students_steps_are_the_papers() -> None:
    timesteps = Schedule(8, 3.0).sigmas() * 1000
    expected = torch.tensor([1000, 954.5455, 900, 833.3333, 750, 642.8571, 500, 300])
    assert torch.allclose(timesteps, expected, atol=1e-3)


def test_integer_timesteps_are_those_of_the_released_code() -> None:
    timesteps = (Schedule(8, 3.0, integer_timesteps=True).sigmas() * 1000).round().int().tolist()
    assert timesteps == [1000, 954, 900, 833, 750, 642, 500, 300]


def test_the_sigmas_are_diffusers_own_and_set_timesteps_alone_would_shift_twice() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / 8, 8).tolist())
    assert torch.allclose(scheduler.sigmas[:-1], Schedule(8, 3.0).sigmas(), atol=1e-7)
    scheduler.set_timesteps(8)
    assert not torch.allclose(scheduler.sigmas[:-1], Schedule(8, 3.0).sigmas(), atol=1e-3)


def test_bounds_after_and_before_the_shift() -> None:
    schedule = Schedule(8, 3.0)
    uniform = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    after = schedule.draw(uniform, 0.5, 1.0)
    before = schedule.draw(uniform, 0.5, 1.0, bound_before_shift=True)
    assert after.min() == pytest.approx(0.5)
    assert before.min() == pytest.approx(0.75)
    assert after.max() < 1
    assert before.max() < 1


def test_a_bounded_draw_is_the_shifted_uniform_distribution_restricted() -> None:
    schedule = Schedule(8, 3.0)
    uniform = torch.linspace(0, 1, 20001, dtype=torch.float64)[:-1]
    whole = schedule.draw(uniform)
    kept = whole[whole > 0.5]
    restricted = schedule.draw(uniform, 0.5, 1.0)
    for quantile in (0.1, 0.5, 0.9):
        assert torch.quantile(kept, quantile) == pytest.approx(float(torch.quantile(restricted, quantile)), abs=1e-3)


def test_a_stretched_schedule_is_the_stock_schedulers() -> None:
    mu = 0.7
    stock = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    stock.set_timesteps(sigmas=torch.linspace(1, 1 / 40, 40).tolist(), mu=mu)
    ours = Schedule(40, float(torch.tensor(mu, dtype=torch.float64).exp()), terminal=0.02).sigmas()
    assert torch.allclose(ours, stock.sigmas[:-1].float(), atol=1e-6) and ours[-1].item() == pytest.approx(0.02)
    assert Schedule(1, 3.0, terminal=0.02).sigmas().tolist() == [1.0]
