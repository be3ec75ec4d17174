"""From values by effect and pair to means over effects with bootstrap intervals, in nested dictionaries for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cldistill_plugins.evaluation.api import resample

Values = Mapping[str, NDArray[np.float64]]
"""Slashed name -> array of any shape, the same in every pair."""


def mean_of_pairs(pairs: Sequence[Values]) -> Values:
    """Average an effect's pairs, name by name; a ``nan`` counts nowhere, and stays where there is nothing else."""
    found = {}
    for name in pairs[0]:
        stacked = np.stack([pair[name] for pair in pairs])
        known = np.isfinite(stacked)
        number = known.sum(axis=0)
        total = np.where(known, stacked, 0.0).sum(axis=0)
        found[name] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return found


def over_effects(effects: Sequence[Values]) -> dict[str, Any]:
    """Return nested dictionaries whose leaves are ``{"mean", "low", "high", "n"}``, in lists of the arrays' shape.

    Effects are resampled whole: the interval is about other effects of the same kind, not about other pairs.
    """
    return nested({name: _intervals(np.stack([effect[name] for effect in effects])) for name in effects[0]})


def by_effect(names: Sequence[str], effects: Sequence[Values]) -> dict[str, Any]:
    """Return nested dictionaries whose leaves map each effect to its values."""
    return nested({key: {name: _plain(e[key]) for name, e in zip(names, effects, strict=True)} for key in effects[0]})


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"a/b": 1}`` into ``{"a": {"b": 1}}``."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        inner = found
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return found


def _intervals(values: NDArray[np.float64]) -> Any:
    """Intervals over the first axis, for every place of the others."""
    if values.ndim > 1:
        return [_intervals(values[:, index]) for index in range(values.shape[1])]
    interval = resample(values).interval()
    return {**{key: _finite(getattr(interval, key)) for key in ("mean", "low", "high")}, "n": interval.n}


def _plain(values: NDArray[np.float64]) -> Any:
    return [_plain(value) for value in values] if values.ndim else _finite(float(values))


def _finite(value: float) -> float | None:
    """JSON has no ``nan``; six digits are more than any of this is worth."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
