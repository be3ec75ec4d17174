"""Texts as users type them, drawn by a seed from phrases that were fixed before any router had run.

They are no log of a product: nobody has one of these effects.  Each effect has two phrases (``phrases.yaml``); an effect
without any is asked for by its name and prompt.  Templates put the words around them that people use.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from cldistill.errors import DataError

TEMPLATES = (
    "{}",
    "please {}",
    "can you {}?",
    "could you {}, please?",
    "i want you to {}",
    "hey, {} for my profile picture",
    "{}, but keep the face as it is",
    "take this photo and {}",
    "{} thx",
    "would be great if you could {}",
)


class BankEffect(BaseModel):
    """One effect as a catalogue lists it; what else it says of an effect does not matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    prompt: str = ""

    @property
    def words(self) -> str:
        """Its name as words."""
        return self.name.replace("-", " ").replace("_", " ")

    @property
    def listing(self) -> str:
        """The text that a router reads of it: name and prompt, as an operator keeps them."""
        return f"{self.words}: {self.prompt}" if self.prompt else self.words


@dataclass(frozen=True)
class Query:
    """A text as a user types it, with the effect that they mean: drawn by `make_queries`, answered by routers."""

    text: str
    effect: str
    described: bool = True
    """True where it says what the effect looks like; one that falls back on the catalogue's own name is found too easily."""


def read_bank(path: Path) -> list[BankEffect]:
    """Read a catalogue: a list of ``{name, prompt}``, or a map with it under ``effects``; in its order.

    Raises:
        DataError: it cannot be read, is of another shape, or names an effect twice.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = TypeAdapter(list[BankEffect]).validate_python(data["effects"] if isinstance(data, dict) else data)
    except (OSError, KeyError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"{path}: is no catalogue of effects, a list of `- name: …` with `prompt: …` ({error})"
        ) from error
    names = [effect.name for effect in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        raise DataError(f"{path}: " + (f"lists {twice[0]!r} twice" if twice else "lists no effects"))
    return found


def read_phrases(path: Path | None = None) -> Mapping[str, Sequence[str]]:
    """Read effect -> phrases; by default those that ship.

    Raises:
        DataError: another shape.
    """
    source = files(__package__).joinpath("phrases.yaml") if path is None else path
    try:
        found = TypeAdapter(dict[str, list[str]]).validate_python(yaml.safe_load(source.read_text(encoding="utf-8")))
    except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{source}: is no map of effects to phrases ({error})") from error
    return found


def make_queries(
    effects: Sequence[BankEffect], phrases: Mapping[str, Sequence[str]], count: int, seed: int = 0
) -> list[Query]:
    """Draw ``count`` queries, each for one effect of the bank: the same arguments give the same queries."""
    drawn = random.Random(f"queries {seed} {len(effects)}")
    queries = []
    for _ in range(count):
        effect = drawn.choice(effects)
        written = phrases.get(effect.name)
        phrase = drawn.choice(tuple(written or fallback(effect)))
        queries.append(Query(drawn.choice(TEMPLATES).format(phrase), effect.name, bool(written)))
    return queries


def fallback(effect: BankEffect) -> tuple[str, ...]:
    """Phrases for an effect that nobody has written any for: by its name, and by prompt and name."""
    by_name = f"use {effect.words}"
    return (by_name, f"{effect.prompt}, the one called {effect.words}") if effect.prompt else (by_name,)
