"""Where the pictures of a collection's run lie now: its exported manifest keeps only the names (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

PATHS = (
    ("base", "options", "model"),
    ("general", "images"),
    ("general", "instructions"),
    ("samples", "images"),
    ("evaluate", "images"),
    ("evaluate", "general"),
)
"""Key paths of a manifest's own files, beside the effects'."""


def recovered(portable: Mapping[str, Any], absolute: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the exported manifest with the paths that the run's own has at the same places.

    Effects are found again by what they are taught with, for they may have been renamed or removed since.
    """
    data = deepcopy(dict(portable))
    if absolute is None:
        return data
    for loc in PATHS:
        found = _get(absolute, loc)
        if isinstance(found, str) and Path(found).is_absolute() and Path(found).name == _get(data, loc):
            _put(data, loc, found)
    for effect in data["effects"]:
        same = [other for other in absolute["effects"] if _same_effect(effect, other)]
        same = [other for other in same if other["name"] == effect["name"]] or same
        if len({str(other.get("pairs")) for other in same}) == 1:
            effect["pairs"] = same[0].get("pairs")
    return data


def _same_effect(portable: Mapping[str, Any], absolute: Mapping[str, Any]) -> bool:
    return portable["prompt"] == absolute["prompt"] and _names(portable) == _names(absolute)


def _names(effect: Mapping[str, Any]) -> tuple[str, ...]:
    options = (effect.get("teacher") or {}).get("options") or {}
    return tuple(Path(str(value)).name for value in (effect.get("pairs"), options.get("path")))


def _get(data: Any, loc: tuple[str, ...]) -> Any:
    for key in loc:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _put(data: dict[str, Any], loc: tuple[str, ...], value: Any) -> None:
    for key in loc[:-1]:
        data = data[key]
    data[loc[-1]] = value
