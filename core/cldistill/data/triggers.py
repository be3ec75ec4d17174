"""Triggers must stay distinct after tokenisation: two words that the text encoder sees alike would be one effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from cldistill.errors import ManifestError

Tokenize = Callable[[str], Sequence[int]]


def clash(triggers: Mapping[str, str], tokenize: Tokenize) -> tuple[str, str] | None:
    """Return an effect whose trigger the tokenizer drops, or takes for another's or for a part of one, and a sentence on it.

    ``triggers`` maps effects to words.  A word counts at the start of a prompt and inside one, where it comes with a space
    before it, which most tokenizers make part of its first token.
    """
    tokens = {name: (tuple(tokenize(word)), tuple(tokenize(f" {word}"))) for name, word in sorted(triggers.items())}
    holders: dict[tuple[int, tuple[int, ...]], set[str]] = defaultdict(set)
    for name, forms in tokens.items():
        if not all(forms):
            return name, f"effect {name!r}: the tokenizer sees nothing in its trigger {triggers[name]!r}"
        for place, form in enumerate(forms):
            for start, stop in combinations(range(len(form) + 1), 2):
                holders[place, form[start:stop]].add(name)
    for inner, forms in tokens.items():
        others = set().union(*(holders[place, form] for place, form in enumerate(forms))) - {inner}
        if others:
            outer = min(others)
            both = f"effects {inner!r} and {outer!r}: triggers {triggers[inner]!r} and {triggers[outer]!r}"
            return inner, f"{both} cannot be told apart: as tokens the first is the second, or a part of it"
    return None


def check_triggers(triggers: Mapping[str, str], tokenize: Tokenize) -> None:
    """Raise `ManifestError` if a trigger vanishes in the tokenizer, or cannot be told from another."""
    if (found := clash(triggers, tokenize)) is not None:
        raise ManifestError(f"{found[1]}; give {found[0]!r} another trigger in prompts.options")
