"""The samplers against diffusers' scheduler, on a closed-form velocity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from cldistill.sampling import samplers as sample
from cldistill.schedule import Schedule


def velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Some smooth function of x and sigma."""
    return torch.tanh(x) * (1.5 - sigma[:, None, None]) + 0.3 * sigma[:, None, None]


def diffusers_sample(noises: list[torch.Tensor], steps: int, stochastic: bool) -> torch.Tensor:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=stochastic)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    x = noises[0]
    for index, t in enumerate(scheduler.timesteps):
        if stochastic:  # the scheduler draws from the global generator: make it draw the given noise
            torch.manual_seed(1000 + index)
        sigma = scheduler.sigmas[index].expand(x.shape[0])
        x = scheduler.step(velocity(x, sigma), t, x, return_dict=False)[0]
    return x


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_few_step_equals_diffusers_stochastic_sampling(steps: int) -> None:
    first = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))

    def noise(step: int) -> torch.Tensor:
        if step == 0:
            return first
        torch.manual_seed(1000 + step - 1)
        return torch.randn(first.shape)

    ours = sample.few_step(velocity, Schedule(steps, 3.0), noise)
    assert torch.equal(ours, diffusers_sample([first], steps, stochastic=True))


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_few_step_without_fresh_noise_is_eulers_method(steps: int) -> None:
    noise, drawn = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), torch.full((2, 6, 4), torch.nan)
    schedule = Schedule(steps, 3.0, stochastic=False)
    ours = sample.few_step(velocity, schedule, lambda step: drawn if step else noise)
    assert torch.allclose(ours, diffusers_sample([noise], steps, stochastic=False), atol=2e-6)


@pytest.mark.parametrize("steps", [1, 8, 40])
def test_euler_equals_diffusers(steps: int) -> None:
    noise = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    ours = sample.euler(velocity, Schedule(steps, 3.0).sigmas(), noise)
    assert torch.allclose(ours, diffusers_sample([noise], steps, stochastic=False), atol=1e-6)


def test_a_perfect_velocity_returns_the_data_in_any_number_of_steps() -> None:
    x0 = torch.randn(2, 6, 4)
    perfect: sample.Predictor = lambda x, sigma: (x - x0) / sigma[:, None, None]  # noqa: E731
    noise: sample.Noise = lambda step: torch.randn(x0.shape, generator=torch.Generator().manual_seed(step))  # noqa: E731
    for steps in (1, 2, 8):
        schedule = Schedule(steps, 3.0)
        assert torch.allclose(sample.few_step(perfect, schedule, noise), x0, atol=1e-5)
        assert torch.allclose(sample.euler(perfect, schedule.sigmas(), noise(0)), x0, atol=1e-5)
