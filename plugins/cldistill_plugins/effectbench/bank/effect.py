"""The record of one effect of the bank: a name, the prompt people use for it, and a recipe that turns one picture into another.

The catalogue makes records; drawing pairs and truths, and every metric that compares with a truth, read them.

Pictures are uint8 arrays (H, W, 3), RGB.  Every effect keeps the geometry: output and source are pixel-aligned.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""A picture: uint8 (H, W, 3), RGB."""


class EffectError(ValueError):
    """An effect cannot be made: unknown name, a missing package or an unusable picture; the message says what to do."""


class Recipe(Protocol):
    """A way of making an effect, with its parameters: a G'MIC command, a colour filter, a neural style and so on."""

    @property
    def made_with(self) -> str:
        """The package and what in it makes the effect, for people."""

    @property
    def package(self) -> str:
        """The distribution on PyPI whose version decides the pixels."""

    @property
    def licence(self) -> str:
        """Licences of the code and weights that make the effect."""

    def render(self, picture: Picture, seed: int) -> Picture:
        """Apply to (H, W, 3) uint8 and return a new array of the same shape; same seed, same bits."""


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """One effect of the bank.

    Attributes:
        name: the name in manifests and folders.
        prompt: what a user would have trained the teacher LoRA with: short, in their words.
        recipe: what makes it.
        stochastic: True when the recipe draws something at random, so that one source has many truths.
        version: raised whenever the same recipe text starts to give other pixels.
    """

    name: str
    prompt: str
    recipe: Recipe
    stochastic: bool = False
    version: int = 1

    @property
    def fingerprint(self) -> str:
        """Changes whenever the effect's pixels may change: 16 hex digits over recipe, version and package version."""
        text = repr((self.name, self.recipe, self.stochastic, self.version, package_version(self.recipe.package)))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def package_version(distribution: str) -> str:
    """The installed version of a distribution, or ``"absent"``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def checked(picture: NDArray[Any]) -> Picture:
    """The picture as a contiguous uint8 (H, W, 3) array.

    Raises:
        EffectError: another shape or type, or a side under 32 pixels (no recipe works below).
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < 32:
        raise EffectError(
            f"an effect needs an RGB picture, uint8 (height, width, 3) with sides of at least 32 pixels; "
            f"this one is {picture.dtype} {picture.shape}. Convert it first, e.g. Image.open(path).convert('RGB')"
        )
    return np.ascontiguousarray(picture)


def derived_seed(*parts: object) -> int:
    """A seed in 1 .. 2^31-1 from a key: neighbouring keys give unrelated seeds, which raw counters do not in G'MIC."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") % (2**31 - 1) + 1
