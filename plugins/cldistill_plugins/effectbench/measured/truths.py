"""The true outputs of the bank's effects for the held-out pictures, as features that the metrics compare with."""

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
from .features import FeatureExtractor, PictureFeatures, extract, feature_cache, feature_key

if TYPE_CHECKING:
    from PIL.Image import Image

FRESH_SEED = 10_000
"""Added to the seed of the reference draws for the fresh ones."""


class Truths:
    """The truths of one source picture.  All pictures pass through the base's VAE, as every system's outputs did."""

    def __init__(
        self,
        request: MetricRequest,
        extractor: FeatureExtractor,
        path: Path,
        size: tuple[int, int],
        draws: int,
        seed: int,
    ) -> None:
        """Args: size: width and height of the outputs, to which the source is resized first."""
        self.size = size
        self._request = request
        self._extractor = extractor
        self._draws = draws
        self._seed = seed
        self._cache = feature_cache(request.cache)
        source = open_picture(path)
        self._source = source if source.size == size else source.resize(size, Pillow.Resampling.LANCZOS)

    @cached_property
    def source(self) -> PictureFeatures:
        """The features of the unedited picture."""
        return self._features("source", lambda: [self._source])

    def own(self, effect: str) -> PictureFeatures:
        """The features of the reference truths: of ``draws``, or of one where the effect is deterministic.

        Raises:
            NotMeasured: what makes the effect is not installed, or not fetched.
        """
        return self._drawn(effect, self._draws, self._seed)

    def fresh(self, effect: str) -> PictureFeatures:
        """One draw from another seed than the reference draws, which for a deterministic effect is the truth itself."""
        if not named(effect).stochastic:
            return self.own(effect)
        return self._drawn(effect, 1, self._seed + FRESH_SEED)

    def _drawn(self, effect: str, count: int, seed: int) -> PictureFeatures:
        record = named(effect)
        key = (record.fingerprint, count, seed) if record.stochastic else (record.fingerprint,)

        def draw() -> list[Image]:
            try:
                stack = truth_draws(record, self._pixels, count, seed, self._request.cache / "truths")
            except EffectError as error:
                raise NotMeasured(f"the effect {effect!r} cannot be made: {error}") from error
            return [Pillow.fromarray(draw) for draw in stack]

        return self._features(repr(key), draw)

    def _features(self, name: str, draw: Callable[[], Sequence[Image]]) -> PictureFeatures:
        key = (self._content, name)

        def make() -> PictureFeatures:
            return extract(self._extractor, decoded(self._request, key, draw))

        return self._cache.get(feature_key(self._extractor, content_key(self._request.base_digest, *key)), make)

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

    return as_signal(
        feature_cache(request.cache).get(content_key("decoded", request.base_digest, *key), make)["pixels"]
    )


def as_signal(pixels: Tensor) -> Tensor:
    """Turn uint8 pictures (B, H, W, 3) into (B, 3, H, W) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0
