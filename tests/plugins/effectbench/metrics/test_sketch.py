"""Count sketches keep squared distances, exactly where nothing collides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cldistill_plugins.effectbench.metrics.sketch import STRUCTURE, Relative, sketch

CENTRE = torch.zeros(1, 2, 4)


@pytest.fixture
def levels() -> list[Tensor]:
    """Two levels of six pictures with many more features than places."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((6, 20_000), generator=generator) / 100, torch.randn((6, 5_000), generator=generator) / 50]


def test_distances_of_hand_written_sketches() -> None:
    a = Relative.of(torch.tensor([[[1.0, 0, 0, 0], [0, 2, 0, 0]]]), CENTRE)
    b = Relative.of(torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, 3, 0], [0, 2, 0, 1.0]]]), CENTRE)
    assert a.lengths.tolist() == [5.0] and b.lengths.tolist() == [1.0, 14.0]
    assert a.squared_distances(b).tolist() == [[4.0, 11.0]]
    assert a.squared_distances(b[1:]).tolist() == [[11.0]]


def test_the_lengths_are_distances_to_the_source_whatever_it_is() -> None:
    source = torch.tensor([[[1.0, 1, 1, 1], [5, 5, 5, 5]]])
    found = Relative.of(source + torch.tensor([0.5, 0, 0, 0]), source)
    assert found.lengths.tolist() == [0.5]


def test_distances_to_a_centre_of_few_draws_are_unbiased() -> None:
    # Draws at 1 and 3 (and 5 elsewhere): mean 2, variance 2, so the mean is off by 2 / 2 = 1 in the mean square.
    draws = Relative.of(torch.tensor([[[1.0, 0, 0, 0], [5, 0, 0, 0]], [[3.0, 0, 0, 0], [5, 0, 0, 0]]]), CENTRE)
    centre, off = draws.centre()
    assert centre.rows.tolist() == [[2.0, 0, 0, 0, 5, 0, 0, 0]] and centre.lengths.tolist() == [29.0]
    assert off.item() == pytest.approx(1.0)
    assert draws[:1].centre()[1].item() == 0.0
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):  # three draws with mean 0 and variance 10 in all, seen from a point at distance 4
        few = Relative.of(torch.randn((3, 1, 10), generator=generator), torch.zeros(1, 1, 10))
        centre, off = few.centre()
        found.append(Relative.of(2 * torch.eye(10)[None, :1], torch.zeros(1, 1, 10)).squared_distances(centre) - off)
    assert torch.cat(found).mean().item() == pytest.approx(4.0, abs=0.5)


def test_a_narrow_level_is_kept_as_it_is(levels: list[Tensor]) -> None:
    found = sketch([level[:, :10] for level in levels], width=16)
    assert found.shape == (6, 2, 16)
    assert torch.equal(found[:, 0, :10], levels[0][:, :10]) and not found[:, :, 10:].any()


def test_distances_are_right_within_the_promised_error_and_unbiased(levels: list[Tensor]) -> None:
    width = 2048
    sketches = sketch(levels, width)
    found = Relative.of(sketches, torch.zeros_like(sketches[:1]))
    estimated = found.squared_distances(found)
    exact = sum((torch.cdist(level, level).square() for level in levels), torch.zeros(6, 6))
    pairs = torch.triu_indices(6, 6, 1)
    errors = (estimated / exact - 1)[pairs[0], pairs[1]]
    promised = (2 / (2 * width)) ** 0.5
    assert errors.std() < 1.5 * promised and errors.mean().abs() < 2 * promised
    assert estimated.diagonal().max() < 1e-5


def test_sketches_are_linear_and_the_same_every_time(levels: list[Tensor]) -> None:
    difference = sketch([level[:1] - level[1:2] for level in levels], 512)
    both = sketch(levels, 512)
    assert torch.allclose(difference[0], both[0] - both[1], atol=1e-5)
    assert torch.equal(both, sketch(levels, 512))


def test_structure_is_two_of_the_levels() -> None:
    sketches = torch.ones(1, 5, 4)
    assert Relative.of(sketches, torch.zeros_like(sketches), STRUCTURE).lengths.tolist() == [8.0]
