"""The true outputs of an effect on a picture, with a cache on disk.

A deterministic effect has one truth; a stochastic one has as many as its seed has values, of which ``n`` are drawn.
"""

from __future__ import annotations

import hashlib
import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .apply import apply_effect
from .catalogue import named
from .effect import EffectRecord, Picture, checked, derived_seed


def truth_draws(
    effect: str | EffectRecord, picture: NDArray[Any], n: int = 16, seed: int = 0, cache: Path | None = None
) -> NDArray[np.uint8]:
    """Truths of an effect on one picture: (draws, H, W, 3) uint8.

    Args:
        effect: a name in the bank, or the record.
        picture: uint8 (H, W, 3), RGB.
        n: draws of a stochastic effect, at least 1; a deterministic effect gives 1 whatever ``n`` is.
        seed: draw ``i`` depends on seed, effect, picture and ``i`` only, so the first 4 of 16 draws are the 4 of n=4.
        cache: a folder for finished draws (made when missing), or None.  Entries are keyed by the picture's content and
            everything that decides the pixels; a damaged one is made again.

    Raises:
        EffectError: as :func:`~cldistill_plugins.effectbench.bank.apply`.
        ValueError: ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"a truth needs at least one draw, not {n}")
    record = named(effect) if isinstance(effect, str) else effect
    pixels = checked(picture)
    content = content_hash(pixels)
    count = n if record.stochastic else 1
    # The seed of a deterministic effect is left out of the key: every seed shares the entry.
    key = (content, record.fingerprint, count, seed if record.stochastic else 0)
    path = cache / f"{record.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz" if cache else None
    if path is not None and (stored := _read(path, (count, *pixels.shape))) is not None:
        return stored
    draws = np.stack([_draw(record, pixels, seed, content, i) for i in range(count)])
    if path is not None:
        _write(path, draws)
    return draws


def content_hash(picture: Picture) -> str:
    """SHA-256 of a picture's shape and pixels, in hex."""
    return hashlib.sha256(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def _draw(effect: EffectRecord, picture: Picture, seed: int, content: str, index: int) -> Picture:
    return apply_effect(effect, picture, derived_seed("truth", seed, effect.name, content, index))


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            draws = np.asarray(file["draws"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return draws if draws.shape == shape and draws.dtype == np.uint8 else None


def _write(path: Path, draws: NDArray[np.uint8]) -> None:
    # Written aside and renamed: a killed writer, or two writers at once, never leave half an entry.
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.{secrets.token_hex(8)}.part")
    with aside.open("wb") as file:
        np.savez_compressed(file, draws=draws)
    aside.replace(path)
