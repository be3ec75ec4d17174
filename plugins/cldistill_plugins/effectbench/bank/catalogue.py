"""The bank's catalogue: `effects/effectbench.yaml` of the registry, 180 effects.

Those that a LoRA of their pairs brings out are *admitted* (`effects/admission.json`, written by ``bank.admit``): the bank of N
is the first N of them in the catalogue's order.  Those that none brings out are the *hard* bank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml

from .colour_filter import ColourFilter
from .effect import EffectError, EffectRecord, Recipe
from .gmic_command import GmicCommand
from .neural import NeuralStyle
from .painting import PaintingStyle
from .six import SIX

FILE = "effects/effectbench.yaml"
ADMISSION = "effects/admission.json"


def named(effect_name: str) -> EffectRecord:
    """The effect of that name: one of the quickstart's six, or of the catalogue.

    Raises:
        EffectError: there is none; the message has the nearest names.
    """
    if effect_name in SIX:
        return SIX[effect_name]
    found = catalogue().get(effect_name)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(effect_name, [*SIX, *catalogue()], n=3, cutoff=0.4)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise EffectError(f"there is no effect {effect_name!r} in the bank{hint} (all of them: {FILE} of the registry)")
    return found


def knows(effect_name: str) -> bool:
    """Return whether the bank can make this effect."""
    return effect_name in SIX or effect_name in catalogue()


def bank_of(size: int) -> list[EffectRecord]:
    """The bank of ``size`` effects: the first admitted ones and, beyond those, others, the hard ones last; a larger bank
    holds the smaller.

    Raises:
        EffectError: the catalogue has fewer.
    """
    effects = list(catalogue().values())
    if not 1 <= size <= len(effects):
        raise EffectError(f"the catalogue has {len(effects)} effects; a bank of {size} cannot be made of it")
    worst = {name: 0 if good else 2 for name, good in tried().items()}
    return sorted(effects, key=lambda effect: worst.get(effect.name, 1))[:size]


def hard_bank() -> list[EffectRecord]:
    """The effects whose teacher was tried and not good enough, in the catalogue's order."""
    return [effect for effect in catalogue().values() if not tried().get(effect.name, True)]


@cache
def tried() -> Mapping[str, bool]:
    """Effects whose teacher was tried (see ``bank.admit``), and whether it was good enough; empty where nobody has."""
    file = files("cldistill_registry") / ADMISSION
    if not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: name in found["admitted"] for name in found["effects"]}


@cache
def catalogue() -> Mapping[str, EffectRecord]:
    """Every effect of the catalogue by name, in its order."""
    entries = settings()["effects"]
    return MappingProxyType({entry["name"]: _effect(entry) for entry in entries})


@cache
def settings() -> Mapping[str, Any]:
    """The catalogue as it is written: version, seed, pairs, sizes, licences and effects."""
    text = (files("cldistill_registry") / FILE).read_text(encoding="utf-8")
    return MappingProxyType(yaml.safe_load(text))


def _effect(entry: Mapping[str, Any]) -> EffectRecord:
    recipe, name = entry["recipe"], entry["name"]
    kind = next(iter(recipe))
    if kind not in _RECIPES:
        raise EffectError(f"{FILE}, effect {name!r}: a recipe is one of {', '.join(_RECIPES)}, not {kind!r}")
    return EffectRecord(name, entry["prompt"], _RECIPES[kind](recipe), stochastic=bool(entry.get("stochastic", False)))


_RECIPES: Mapping[str, Callable[[Mapping[str, Any]], Recipe]] = MappingProxyType(
    {
        "neural": lambda recipe: NeuralStyle(recipe["neural"]),
        "gmic": lambda recipe: GmicCommand(recipe["gmic"], recipe["gmic"].split(maxsplit=1)[0]),
        "pilgram": lambda recipe: ColourFilter(recipe["pilgram"]),
        "painting": lambda recipe: PaintingStyle(recipe["painting"], recipe["part"]),
        "six": lambda recipe: SIX[recipe["six"]].recipe,
    }
)
