"""The split: balanced, least in the objective, the same each time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cldistill_plugins.deployment.partition import at_random, balanced_groups, labels_of, within


@pytest.mark.parametrize(("n", "groups"), [(8, 2), (7, 3), (6, 6), (5, 1)])
def test_no_balanced_split_is_better(n: int, groups: int) -> None:
    matrix = np.random.default_rng(n).normal(size=(n, n))
    found = balanced_groups(matrix, groups)
    sizes = [len(group) for group in found]
    assert max(sizes) - min(sizes) <= 1 and sorted(itertools.chain(*found)) == list(range(n))
    blocks = np.sort(np.arange(n) % groups).tolist()
    best = min(within(matrix, labels) for labels in set(itertools.permutations(blocks)))
    assert within(matrix, labels_of(found)) == pytest.approx(best)


def test_effects_that_go_together_stay_together() -> None:
    kinds = np.array([0, 1, 0, 1, 2, 2, 0, 1, 2])
    matrix = np.where(kinds[:, None] == kinds[None], -0.3, 0.4)
    assert balanced_groups(matrix, 3) == [[0, 2, 6], [1, 3, 7], [4, 5, 8]]


def test_only_the_symmetric_part_counts_and_a_constant_changes_nothing() -> None:
    matrix = np.random.default_rng(1).normal(size=(12, 12))
    skew = np.triu(np.ones((12, 12)), 1) - np.tril(np.ones((12, 12)), -1)
    assert balanced_groups(matrix, 3) == balanced_groups(matrix + 5 * skew, 3) == balanced_groups(matrix + 7.0, 3)


def test_a_large_bank_beats_chance() -> None:
    matrix = np.random.default_rng(2).normal(size=(180, 180))
    found = balanced_groups(matrix, 4, starts=2)
    assert [len(group) for group in found] == [45] * 4
    assert within(matrix, labels_of(found)) < at_random(matrix, 4, draws=50) - 0.1


@pytest.mark.parametrize(
    ("matrix", "groups"), [(np.ones((2, 3)), 1), (np.ones((3, 3)), 4), (np.full((2, 2), np.nan), 1)]
)
def test_what_cannot_be_split_is_refused(matrix: np.ndarray, groups: int) -> None:
    with pytest.raises(ValueError, match=r"cannot be split|square matrix"):
        balanced_groups(matrix, groups)
