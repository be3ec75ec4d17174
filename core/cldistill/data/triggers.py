"""Triggers must stay distinct after tokenisation: two words that the text encoder sees alike would be one effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from cldistill.errors import ManifestError

Tokenize = Callable[[str], Sequence[int]]


def unseen(triggers: Mapping[str, str], tokenize: Tokenize) -> str | None:
    """Return an effect whose trigger the tokenizer drops, or None."""
    return next((name for name, word in triggers.items() if not all(_forms(word, tokenize))), None)


def confusable(triggers: Mapping[str, str], tokenize: Tokenize) -> tuple[str, str] | None:
    """Return two effects of which the first one's trigger is the second's, or lies within it, as tokens; else None.

    ``triggers`` maps effects to words.  A word counts at the start of a prompt and inside one, where it comes with a space
    before it, which most tokenizers make part of its first token.
    """
    tokens = {name: _forms(word, tokenize) for name, word in triggers.items()}
    holders: dict[tuple[int, tuple[int, ...]], set[str]] = defaultdict(set)
    for name, forms in tokens.items():
        for place, form in enumerate(forms):
            for start, stop in combinations(range(len(form) + 1), 2):
                holders[place, form[start:stop]].add(name)
    for inner, forms in sorted(tokens.items()):
        outer = set().union(*(holders[place, form] for place, form in enumerate(forms))) - {inner}
        if outer:
            return inner, min(outer)
    return None


def check_triggers(triggers: Mapping[str, str], tokenize: Tokenize) -> None:
    """Raise `ManifestError` if a trigger vanishes in the tokenizer, or cannot be told from another."""
    lost = unseen(triggers, tokenize)
    if lost is not None:
        raise ManifestError(f"effect {lost!r}: the tokenizer sees nothing in its trigger {triggers[lost]!r}")
    pair = confusable(triggers, tokenize)
    if pair is not None:
        inner, outer = pair
        raise ManifestError(
            f"effects {inner!r} and {outer!r}: triggers {triggers[inner]!r} and {triggers[outer]!r} are the same, or one "
            "lies within the other, after tokenisation; give one of them another trigger in prompts.options"
        )


def _forms(word: str, tokenize: Tokenize) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(tokenize(word)), tuple(tokenize(f" {word}"))
