"""The DMD gradient against hand-computed numbers, and on a case whose scores are known in closed form."""

from __future__ import annotations

import pytest
import torch

from cldistill.schedule import add_noise
from cldistill_plugins.collectionlora.dmd import dmd_gradient, dmd_loss


def test_hand_computed() -> None:
    fake, real = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    student = torch.tensor([[2.0, 5.0]], requires_grad=True)
    result = dmd_gradient(fake, real, student)
    # |y - r| = (1, 3): mean 2; f - r = (2, -1)
    assert torch.allclose(result.normaliser, torch.tensor([2.0]))
    assert torch.allclose(result.gradient, torch.tensor([[1.0, -0.5]]))
    loss = dmd_loss(student, result.gradient)
    # 0.5 * mean(g^2) = 0.5 * (1 + 0.25) / 2
    assert torch.allclose(loss, torch.tensor(0.3125))
    loss.backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, torch.tensor([[1.0, -0.5]]) / 2)


def test_each_sample_has_its_own_normaliser() -> None:
    fake, real = torch.ones(2, 4), torch.zeros(2, 4)
    student = torch.stack([torch.ones(4), torch.full((4,), 10.0)])
    gradient = dmd_gradient(fake, real, student).gradient
    assert torch.allclose(gradient[0], torch.ones(4))
    assert torch.allclose(gradient[1], torch.full((4,), 0.1))


def test_a_sample_that_is_not_finite_costs_only_itself() -> None:
    fake = torch.ones(2, 3)
    fake[0, 0] = float("nan")
    gradient = dmd_gradient(fake, torch.zeros(2, 3), torch.full((2, 3), 2.0)).gradient
    assert gradient[0, 0] == 0
    assert torch.allclose(gradient[1], torch.full((3,), 0.5))


def test_agreement_to_the_last_bit_is_no_division_by_zero() -> None:
    same = torch.ones(1, 3)
    result = dmd_gradient(same, same, same)
    assert torch.equal(result.gradient, torch.zeros(1, 3))
    assert bool(torch.isfinite(result.normaliser).all())


def test_computed_in_fp32_from_bf16() -> None:
    fake = torch.full((1, 4), 1.0, dtype=torch.bfloat16)
    result = dmd_gradient(fake, fake * 0.5, fake)
    assert result.gradient.dtype == torch.float32


def _posterior_mean(x: torch.Tensor, sigma: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """``E[x0 | x]`` for ``x0 ~ N(mean, std^2)`` and ``x = (1 - sigma) x0 + sigma eps``."""
    s = sigma.unsqueeze(1)
    variance = ((1 - s) * std) ** 2 + s**2
    return mean + (1 - s) * std**2 * (x - (1 - s) * mean) / variance


@pytest.mark.slow
def test_descent_moves_the_students_distribution_to_the_teachers() -> None:
    """Student N(m, 1), teacher N(2, 1), both scores exact: m must go to 2 and stay there."""
    generator = torch.Generator().manual_seed(0)
    shift = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([shift], lr=2.0)
    for _ in range(400):
        student = shift + torch.randn(256, 4, generator=generator)
        sigma = torch.rand(256, generator=generator) * 0.96 + 0.02
        noised = add_noise(student.detach(), torch.randn(256, 4, generator=generator), sigma)
        fake = _posterior_mean(noised, sigma, float(shift.detach()), 1.0)
        real = _posterior_mean(noised, sigma, 2.0, 1.0)
        loss = dmd_loss(student, dmd_gradient(fake, real, student).gradient)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(shift.detach()) - 2.0) < 0.05


def test_the_gradient_of_the_known_case_has_the_closed_form() -> None:
    sigma = torch.tensor([0.5])
    noised = torch.tensor([[1.0, -2.0, 0.25]])
    fake = _posterior_mean(noised, sigma, 0.0, 1.0)
    real = _posterior_mean(noised, sigma, 2.0, 1.0)
    # (1-s)^2 + s^2 = 1/2, so E[x0|x] = m + (x - m/2): their difference is -(m/2) = -1 for every x
    assert torch.allclose(fake - real, torch.full((1, 3), -1.0))
    student = torch.zeros(1, 3)
    expected = -1.0 / (student - real).abs().mean()
    assert torch.allclose(dmd_gradient(fake, real, student).gradient, torch.full((1, 3), float(expected)))
