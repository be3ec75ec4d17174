"""A balanced split of effects into groups that disturb each other least: pure functions of a matrix.

Objective: with ``I`` symmetric, ``[n, n]``, find groups whose sizes differ by at most one and that minimise

    sum over groups g, over pairs i < j in g, of I_ij .

This is a min-sum graph partition (NP-hard): local search by the best swap of two effects in different groups, from several
seeded starts.  For sizes this near to one another, adding a constant to all of ``I`` changes nothing worth naming.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
STARTS = 32
_GAIN = 1e-12
"""A swap must gain more than rounding, or two equal splits would be swapped for ever."""


def balanced_groups(interference: ArrayLike, groups: int, seed: int = 0, starts: int = STARTS) -> list[list[int]]:
    """Split ``n`` effects into ``groups`` groups of ``n // groups`` or one more; the same arguments give the same groups.

    Args:
        interference: ``[n, n]``; its symmetric part counts, its diagonal does not.
        groups: At least 1 and at most ``n``.
        seed: Of the starts.
        starts: Local searches; the best result is kept.

    Returns:
        Indices, sorted within each group; groups sorted by their first index.

    Raises:
        ValueError: no square matrix of finite numbers, or an impossible number of groups.
    """
    matrix = _symmetric(interference)
    n = len(matrix)
    if not 1 <= groups <= n:
        raise ValueError(f"{n} effects cannot be split into {groups} groups that are not empty")
    random = np.random.default_rng(seed)
    blocks = np.sort(np.arange(n) % groups)
    found = [_descend(matrix, random.permutation(blocks), groups) for _ in range(starts)]
    labels = min(found, key=lambda candidate: within(matrix, candidate))
    return sorted([np.flatnonzero(labels == group).tolist() for group in range(groups)])


def within(interference: ArrayLike, labels: ArrayLike) -> float:
    """Mean interference over the pairs that share a group (0 where no two do); ``labels`` is ``[n]``."""
    matrix, assigned = _symmetric(interference), np.asarray(labels)
    pairs = np.triu(assigned[:, None] == assigned[None], 1)
    return float(matrix[pairs].mean()) if pairs.any() else 0.0


def labels_of(groups: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return the group of each effect, ``[n]``."""
    labels = np.empty(sum(map(len, groups)), dtype=np.int64)
    for label, members in enumerate(groups):
        labels[list(members)] = label
    return labels


def at_random(interference: ArrayLike, groups: int, draws: int = 1000, seed: int = 0) -> float:
    """Mean interference within the groups of balanced *random* splits: what a split must beat."""
    matrix = _symmetric(interference)
    blocks, random = np.arange(len(matrix)) % groups, np.random.default_rng(seed)
    return float(np.mean([within(matrix, random.permutation(blocks)) for _ in range(draws)]))


def _descend(matrix: Floats, labels: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Swap the best two effects of different groups until no swap gains.

    Swapping i of g with j of h changes the objective by ``to[i, h] + to[j, g] - to[i, g] - to[j, h] - 2 I_ij``, with
    ``to[i, g]`` the sum of i's interference with g.
    """
    labels = labels.copy()
    while True:
        to = matrix @ np.eye(groups)[labels]
        own = to[np.arange(len(labels)), labels]
        other = to[:, labels]
        change = other + other.T - own[:, None] - own[None] - 2 * matrix
        change[labels[:, None] == labels[None]] = 0.0
        i, j = np.unravel_index(change.argmin(), change.shape)
        if change[i, j] > -_GAIN:
            return labels
        labels[i], labels[j] = labels[j], labels[i]


def _symmetric(interference: ArrayLike) -> Floats:
    matrix = np.asarray(interference, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"interference must be a square matrix of finite numbers, not of shape {matrix.shape}")
    symmetric = (matrix + matrix.T) / 2
    np.fill_diagonal(symmetric, 0.0)
    return symmetric
