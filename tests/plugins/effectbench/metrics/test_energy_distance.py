"""The energy distance by hand, and what it must tell apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cldistill_plugins.effectbench.metrics.energy_distance import energy_values, residuals

PICTURES, DRAWS, SIZE = 24, 16, 8


@pytest.fixture
def draws() -> list[Tensor]:
    """Two colours at random on pictures that differ far more from one another than the colours do."""
    generator = torch.Generator().manual_seed(0)
    content = 10 * torch.randn((PICTURES, 1, SIZE), generator=generator)
    colour = torch.randint(2, (PICTURES, DRAWS, 1), generator=generator).float() * 2 - 1
    noise = 0.1 * torch.randn((PICTURES, DRAWS, SIZE), generator=generator)
    return list(content + colour * torch.eye(SIZE)[0] + noise)


def measure(outputs: Tensor, draws: list[Tensor]) -> float:
    return float(energy_values(*residuals(outputs, [own[1:] for own in draws])).mean())


def test_by_hand_in_one_dimension() -> None:
    # Outputs at 0 and 0; truth at -1 and 1.  E|X-Y| = 1, E|X-X'| = 2, E|Y-Y'| = 0: (2*1 - 2 - 0) / 2 = 0.
    outputs, truth = torch.zeros(2, 1), torch.tensor([[-1.0], [1.0]])
    assert energy_values(outputs, truth).tolist() == pytest.approx([0.0, 0.0])
    # Outputs at 2 and 4: E|X-Y| = 3, E|Y-Y'| = 2: (6 - 2 - 2) / 2 = 1; the pseudo-values are 0 and 2.
    values = energy_values(torch.tensor([[2.0], [4.0]]), truth)
    assert values.tolist() == pytest.approx([0.0, 2.0]) and values.mean() == pytest.approx(1.0)


def test_residuals_leave_a_draw_out_of_the_mean_that_it_is_compared_with() -> None:
    outputs, truth = residuals(torch.tensor([[5.0]]), [torch.tensor([[0.0], [3.0], [6.0]])])
    assert outputs.tolist() == [[2.0]]
    assert truth.flatten().tolist() == [-4.5, 0.0, 4.5]


def test_fresh_draws_are_at_no_distance(draws: list[Tensor]) -> None:
    assert abs(measure(torch.stack([own[0] for own in draws]), draws)) < 0.12


def test_an_averaged_sampler_is_far_from_the_truth(draws: list[Tensor]) -> None:
    assert measure(torch.stack([own[1:].mean(dim=0) for own in draws]), draws) > 0.3


def test_a_sampler_that_always_draws_the_same_is_far_too(draws: list[Tensor]) -> None:
    same = torch.stack([own[own[:, 0].argmax()] for own in draws])
    assert measure(same, draws) > 0.3


def test_the_spread_of_the_values_tells_the_error_of_their_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn((400, 2), generator=generator)
    estimates, promised = [], []
    for _ in range(200):
        values = energy_values(torch.randn((16, 2), generator=generator) + 0.7, truth)
        estimates.append(values.mean())
        promised.append(values.std() / 4)
    assert torch.stack(promised).mean() == pytest.approx(torch.stack(estimates).std().item(), rel=0.25)


def test_what_has_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="two truth draws or more"):
        residuals(torch.zeros(1, 2), [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match="two of each"):
        energy_values(torch.zeros(1, 2), torch.rand(3, 2))
    with pytest.raises(ValueError, match="all equal"):
        energy_values(torch.zeros(2, 2), torch.ones(3, 2))
