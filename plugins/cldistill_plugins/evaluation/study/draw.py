"""The sets that a study shows, drawn, and the tokens that stand for its candidates."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from pathlib import Path

from cldistill.errors import DataError, nearest
from cldistill_plugins.evaluation.report.record import SOURCE, Evaluation, SystemRow, picture_path
from cldistill_plugins.evaluation.study.key import StudySet

FEWEST, MOST = 2, 6
"""Candidates that can be looked at side by side."""
TOKEN_BYTES = 8


def choose_systems(evaluation: Evaluation, wanted: Sequence[str] | None) -> list[SystemRow]:
    """Return the systems to compare: those named, else all.

    Raises:
        DataError: a name is unknown or given twice, or there are too few or too many to compare.
    """
    known = {system.name: system for system in evaluation.systems}
    names = list(wanted) if wanted else list(known)
    for name in names:
        if name not in known:
            raise DataError(
                f"--system {name}: the evaluation {evaluation.name!r} has no such system{nearest(name, known)}"
            )
        if names.count(name) > 1:
            raise DataError(f"--system {name} is given more than once")
    if not FEWEST <= len(names) <= MOST:
        raise DataError(
            f"a study compares {FEWEST} to {MOST} systems, and these are {len(names)} ({', '.join(names)}): choose them "
            "with --system, once for each"
        )
    return [known[name] for name in names]


def draw_sets(folder: Path, evaluation: Evaluation, systems: Sequence[str], count: int, seed: int) -> list[StudySet]:
    """Draw ``count`` pairs of effect and picture, as evenly over the effects as they come, and give all of them tokens.

    The seed decides only what is shown.  Tokens and order come from the system's own randomness, so that nobody who has
    the page and this program can work out which candidate is which.

    Raises:
        DataError: fewer pairs have a picture of every system.
    """
    dice = random.Random(seed)
    hands = [
        dice.sample(keys, len(keys))
        for effect in dice.sample(list(evaluation.effects), len(evaluation.effects))
        if (keys := [(effect.name, key) for key in evaluation.pictures if _complete(folder, systems, effect.name, key)])
    ]
    dealt = [hand[turn] for turn in range(max(map(len, hands), default=0)) for hand in hands if turn < len(hand)]
    if not 1 <= count <= len(dealt):
        raise DataError(
            f"--sets {count}: {len(dealt)} pairs of effect and picture have an output of every one of "
            f"{', '.join(systems)} under {folder / 'pictures'}; ask for 1 to {len(dealt)}"
            if dealt
            else f"no pair of effect and picture has an output of every one of {', '.join(systems)} under "
            f"{folder / 'pictures'}: were the pictures moved away?"
        )
    sets = [_set(effect, key, systems) for effect, key in dealt[:count]]
    return sorted(sets, key=lambda one: one.id)


def _complete(folder: Path, systems: Sequence[str], effect: str, key: str) -> bool:
    return all(picture_path(folder, column, effect, key).is_file() for column in (SOURCE, *systems))


def _set(effect: str, key: str, systems: Sequence[str]) -> StudySet:
    tokens = sorted(token() for _ in systems)
    shuffled = list(systems)
    secrets.SystemRandom().shuffle(shuffled)
    return StudySet(id=token(), effect=effect, picture=key, candidates=dict(zip(tokens, shuffled, strict=True)))


def token() -> str:
    """Return a random name that says nothing."""
    return secrets.token_hex(TOKEN_BYTES)
