"""Keyed randomness: draws depend on the key and on nothing else."""

from __future__ import annotations

import pytest
import torch

from cldistill.random import KeyedRandom


def test_the_same_key_draws_the_same_whatever_came_before() -> None:
    first = KeyedRandom(7)
    first.normal((3,), "other")
    assert torch.equal(first.normal((4, 2), "noise", 3), KeyedRandom(7).normal((4, 2), "noise", 3))


def test_every_part_of_the_key_counts() -> None:
    random = KeyedRandom(7)
    draws = [
        random.normal((8,), "noise", 0),
        random.normal((8,), "noise", 1),
        random.normal((8,), "noise", "1"),
        random.child("critic").normal((8,), "noise", 0),
        KeyedRandom(8).normal((8,), "noise", 0),
    ]
    for index, one in enumerate(draws):
        for other in draws[index + 1 :]:
            assert not torch.equal(one, other)


def test_ranks_share_decisions_and_differ_in_noise() -> None:
    zero, one = KeyedRandom(7, rank=0), KeyedRandom(7, rank=1)
    assert zero.uniform("stream") == one.uniform("stream")
    assert zero.integer(8, "depth") == one.integer(8, "depth")
    assert not torch.equal(zero.normal((8,), "noise"), one.normal((8,), "noise"))


def test_draws_are_uniform_enough() -> None:
    random = KeyedRandom(0)
    values = [random.uniform("u", i) for i in range(4000)]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.02)
    counts = [0] * 8
    for i in range(4000):
        counts[random.integer(8, "i", i)] += 1
    assert min(counts) > 400


def test_an_empty_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="high >= 1"):
        KeyedRandom(0).integer(0, "x")
