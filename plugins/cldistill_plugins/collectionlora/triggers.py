"""Trigger words: made-up, pronounceable, and a function of the effect's name alone (arXiv 2605.25378 section 3.2).

Because nothing else goes into a word, adding, removing or reordering effects never changes the words of the others: a
collection that is trained further keeps the ones that its users have learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from cldistill.data.triggers import clash
from cldistill.errors import OptionsError, nearest

ONSETS, VOWELS, CODAS, ENDINGS = "bdfghjklmnprstvwz", "aeiou", "bdgklmnprstxz", "kvxz"
PATTERN = (ONSETS, VOWELS, CODAS, ONSETS, VOWELS, ONSETS, VOWELS, ENDINGS)
"""32 million words such as ``zorvimex``: 180 effects collide with a chance of 0.05 %, and then an error says so."""
UNFORTUNATE = (
    "anal",
    "dik",
    "fag",
    "fuk",
    "kak",
    "kok",
    "kum",
    "kunt",
    "nazi",
    "nig",
    "nud",
    "pis",
    "rap",
    "sex",
    "tit",
)


def trigger_word(name: str, skip: int = 0) -> str:
    """Return the trigger of the effect ``name``; with ``skip`` the words that come next for the same name."""
    words = (word for word in map(lambda n: _word(name, n), count()) if not any(part in word for part in UNFORTUNATE))
    for _ in range(skip):
        next(words)
    return next(words)


def assign_triggers(names: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return effect -> trigger: the ``chosen`` word where there is one, else the word of its name.

    Raises `OptionsError` where ``chosen`` names an unknown effect, or where two triggers are equal or one holds the
    other.  Which effect must then move is left to the person: a rule that moved one would depend on their order.
    """
    for name in chosen:
        if name not in names:
            raise OptionsError(f"triggers.{name}: there is no effect {name!r}{nearest(name, names)}")
    triggers = {name: chosen.get(name) or trigger_word(name) for name in names}
    check_distinct(triggers, lambda text: [ord(letter) for letter in text.casefold()])
    return triggers


def check_distinct(triggers: Mapping[str, str], tokenize: Callable[[str], Sequence[int]]) -> None:
    """See that no trigger's tokens are another's, or lie within another's, at the start of a prompt and inside one.

    Inside a prompt a word comes with a space before it, which most tokenizers make part of its first token.
    Raises `OptionsError` with both effects and a word that could be used instead.
    """
    if (found := clash(triggers, tokenize)) is not None:
        raise OptionsError(f"{found[1]}: {_advice(found[0])}")


def _advice(name: str) -> str:
    return f"give one another word, e.g. prompts.options.triggers: {{{name}: {trigger_word(name, skip=1)}}}"


def _word(name: str, attempt: int) -> str:
    """Spell the hash of name and attempt, one letter of each class of `PATTERN` after the other."""
    number = int.from_bytes(hashlib.sha256(f"{name}\x1f{attempt}".encode()).digest(), "big")
    letters = []
    for choices in PATTERN:
        number, index = divmod(number, len(choices))
        letters.append(choices[index])
    return "".join(letters)
