"""Applying effects: one picture in, one picture out."""

from __future__ import annotations

import secrets
from typing import Any

from numpy.typing import NDArray

from .catalogue import named
from .effect import EffectError, EffectRecord, Picture, checked


def apply(effect_name: str, picture: NDArray[Any], seed: int | None = None) -> Picture:
    """Apply an effect of the bank.

    Args:
        effect_name: a name in the bank.
        picture: uint8 (H, W, 3), RGB, sides of at least 32 pixels.
        seed: the draw of a stochastic effect, 0 or above: same seed, same bits.  None is a fresh draw.  Deterministic
            effects give the same bits with any seed.

    Returns:
        A new uint8 (H, W, 3) array, pixel-aligned with ``picture``.

    Raises:
        EffectError: an unknown name, an unusable picture or seed, or a missing package (named, with how to install it).
    """
    return apply_effect(named(effect_name), picture, seed)


def apply_effect(effect: EffectRecord, picture: NDArray[Any], seed: int | None = None) -> Picture:
    """:func:`apply` with the record instead of its name."""
    if seed is not None and seed < 0:
        raise EffectError(f"a seed is 0 or above, not {seed}")
    if not effect.stochastic:
        seed = 0
    return effect.recipe.render(checked(picture), secrets.randbits(31) if seed is None else seed)
