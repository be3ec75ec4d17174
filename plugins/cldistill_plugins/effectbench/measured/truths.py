"""What every effect of the bank truly makes of the held-out pictures, as the metrics see it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.storage.tensors import content_key

from ..bank import EffectError, Picture, named, truth_draws
from .looks import Eye, Look, album, key_of, look_at

if TYPE_CHECKING:
    from PIL.Image import Image

FRESH_SEED = 10_000
"""Added to the seed of the reference draws for the fresh ones."""


class Truths:
    """The truths of one source picture.  All pictures pass through the base's VAE, as every system's outputs did."""

    def __init__(
        self, request: MetricRequest, eye: Eye, path: Path, size: tuple[int, int], draws: int, seed: int
    ) -> None:
        """Args: size: width and height of the outputs, to which the source is resized first."""
        self.size = size
        self._request = request
        self._eye = eye
        self._draws = draws
        self._seed = seed
        self._cache = album(request.cache)
        source = open_picture(path)
        self._source = source if source.size == size else source.resize(size, Pillow.Resampling.LANCZOS)

    @cached_property
    def source(self) -> Look:
        """The unedited picture: a look of 1."""
        return self._look("source", lambda: [self._source])

    def own(self, effect: str) -> Look:
        """Reference truths: a look of ``draws``, or of 1 where the effect is deterministic.

        Raises:
            NotMeasured: what makes the effect is not installed, or not fetched.
        """
        return self._drawn(effect, self._draws, self._seed)

    def fresh(self, effect: str) -> Look:
        """One draw from another seed than the reference draws, which for a deterministic effect is the truth itself."""
        if not named(effect).stochastic:
            return self.own(effect)
        return self._drawn(effect, 1, self._seed + FRESH_SEED)

    def _drawn(self, effect: str, count: int, seed: int) -> Look:
        record = named(effect)
        key = (record.fingerprint, count, seed) if record.stochastic else (record.fingerprint,)

        def draw() -> list[Image]:
            try:
                stack = truth_draws(record, self._pixels, count, seed, self._request.cache / "truths")
            except EffectError as error:
                raise NotMeasured(f"the effect {effect!r} cannot be made: {error}") from error
            return [Pillow.fromarray(draw) for draw in stack]

        return self._look(repr(key), draw)

    def _look(self, name: str, draw: Callable[[], Sequence[Image]]) -> Look:
        key = (self._content, name)

        def look() -> Look:
            return look_at(self._eye, decoded(self._request, key, draw))

        return self._cache.get(key_of(self._eye, content_key(self._request.base_digest, *key)), look)

    @cached_property
    def _pixels(self) -> Picture:
        return np.asarray(self._source, dtype=np.uint8)

    @cached_property
    def _content(self) -> str:
        return hashlib.sha256(repr(self._pixels.shape).encode() + self._pixels.tobytes()).hexdigest()


def decoded(request: MetricRequest, key: Sequence[str], draw: Callable[[], Sequence[Image]]) -> Tensor:
    """Pass pictures of one size through the base's VAE, or read what came out earlier: (B, 3, H, W) in [-1, 1].

    Args:
        key: the content of the pictures.
        draw: makes them.
    """

    def make() -> dict[str, Tensor]:
        made = request.reconstruct(draw())
        return {"pixels": torch.from_numpy(np.stack([np.asarray(picture) for picture in made]))}

    return as_signal(album(request.cache).get(content_key("decoded", request.base_digest, *key), make)["pixels"])


def as_signal(pixels: Tensor) -> Tensor:
    """Turn uint8 pictures (B, H, W, 3) into (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
