"""Names of styles and filters in words that the miniature's tokenizer has as single tokens, so prompts stay short."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 40, 40), "orange": (225, 130, 45), "yellow": (225, 205, 70), "green": (70, 150, 70), "blue": (60, 90, 190),
    "purple": (125, 70, 165), "pink": (230, 150, 185), "brown": (125, 85, 55), "white": (225, 225, 220),
    "black": (40, 40, 45), "grey": (130, 130, 130), "gold": (200, 160, 60), "violet": (165, 120, 210), "cold": (130, 175, 205),
    "pale": (205, 190, 170), "deep": (60, 50, 90), "warm": (185, 110, 90), "forest": (50, 85, 60), "sea": (70, 140, 150),
}  # fmt: skip
"""Words for the colour that a style has in the mean."""
_ENDINGS = (  # noqa: SIM905
    "sun moon star night day city sky mountain garden bird cat dog child woman man portrait scene story snow rain ice stone "
    "wood metal bronze plastic clay felt wool frame border hat crown scarf costume century identity expression mood version "
    "retro modern classic rough smooth thin thick bold soft hard flat light dark sharp hand digital famous artist early late"
).split()


def colour_word(colour: NDArray[np.float64]) -> str:
    """The word of the nearest colour."""
    return min(COLOURS, key=lambda word: float(np.square(np.array(COLOURS[word]) - colour).sum()))


def unique_names(stems: Sequence[str], seed: int) -> list[str]:
    """Each stem with one more word, so that no name comes twice.

    Raises:
        ValueError: a stem comes more often than there are words.
    """
    rng = np.random.default_rng([seed, 1])
    taken: set[str] = set()
    names = []
    for stem in stems:
        free = [word for word in _ENDINGS if f"{stem} {word}" not in taken]
        if not free:
            raise ValueError(f"{stem!r} comes more than {len(_ENDINGS)} times")
        names.append(f"{stem} {free[rng.integers(len(free))]}")
        taken.add(names[-1])
    return names
