"""Features of pictures, which the metrics of this plugin compare: named tensors, computed once a picture and cached on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cldistill.errors import NotMeasured
from cldistill.storage.tensors import TensorCache, content_key

from ..metrics.efficientnet_lite import EarlyLayers
from ..metrics.hed_vgg_lpips import BATCH, HedVggLpips
from ..metrics.hed_vgg_weights import MetricWeightsError
from ..metrics.high_frequency import energy
from ..metrics.sketch import WIDTH, sketch
from ..metrics.style_statistics import style_of_levels

PictureFeatures = dict[str, Tensor]
"""Named features of one or several pictures, the first axis counting pictures."""

_MEMORY = 2**29


class FeatureExtractor(Protocol):
    """Computes from pictures the features that a metric compares."""

    name: str
    """Part of every key of the cache: an extractor that computes other features must have another name."""

    def __call__(self, pictures: Tensor) -> PictureFeatures:
        """Compute the features of pictures (B, 3, H, W) in [-1, 1], B of a few."""


class HedExtractor:
    """``sketch`` (B, 5, width) of the HED-VGG LPIPS features, their ``style`` (B, 2944), and ``energy`` (B,)."""

    name = f"hed-vgg-1-{WIDTH}"

    def __init__(self) -> None:
        self._network = HedVggLpips()

    def __call__(self, pictures: Tensor) -> PictureFeatures:
        levels = list(self._network.levels(pictures))
        return {
            "sketch": sketch(levels).half(),
            "style": style_of_levels(levels, self._network.channels),
            "energy": energy(pictures),
        }


class EarlyExtractor:
    """``early`` (B, D): statistics of EfficientNet-Lite0's first layers."""

    name = "efficientnet-lite0-1"

    def __init__(self) -> None:
        self._network = EarlyLayers()

    def __call__(self, pictures: Tensor) -> PictureFeatures:
        return {"early": self._network.statistics(pictures)}


class EnergyExtractor:
    """``energy`` (B,): high-frequency energy of luma."""

    name = "energy-1"

    def __call__(self, pictures: Tensor) -> PictureFeatures:
        return {"energy": energy(pictures)}


@lru_cache(maxsize=4)
def loaded_extractor(kind: Callable[[], FeatureExtractor]) -> FeatureExtractor:
    """Load an extractor's network, once in a process.

    Raises:
        NotMeasured: its weights are not installed.
    """
    try:
        return kind()
    except MetricWeightsError as error:
        raise NotMeasured(str(error)) from error


@lru_cache(maxsize=2)
def feature_cache(folder: Path) -> TensorCache:
    """Return the cache of features below a request's cache: one for all metrics, so that they share what is in memory."""
    return TensorCache(folder / "features", _MEMORY)


def feature_key(extractor: FeatureExtractor, picture: str) -> str:
    """Name a picture's features in the cache; the torch version decides the last bits, and the sketch's random places."""
    return content_key(extractor.name, torch.__version__, picture)


def extract(extractor: FeatureExtractor, pictures: Tensor) -> PictureFeatures:
    """Compute the features of any number of pictures (B, 3, H, W), a few at a time."""
    parts = [extractor(chunk) for chunk in pictures.split(BATCH)]  # type: ignore[no-untyped-call]
    return joined(parts)


def joined(parts: Sequence[PictureFeatures]) -> PictureFeatures:
    """Concatenate the features of several pictures."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def ensure(
    cache: TensorCache,
    extractor: FeatureExtractor,
    pictures: Mapping[str, Callable[[], Tensor]],
    done: Callable[[int], None],
) -> None:
    """Compute the features that the cache lacks.

    Args:
        pictures: content digest -> how to read the picture, (1, 3, H, W).
        done: told how many more pictures are ready.
    """
    missing = [digest for digest in pictures if not cache.has(feature_key(extractor, digest))]
    done(len(pictures) - len(missing))
    for start in range(0, len(missing), BATCH):
        chunk = missing[start : start + BATCH]
        found = extractor(torch.cat([pictures[digest]() for digest in chunk]))
        for row, digest in enumerate(chunk):
            features = {name: values[row : row + 1] for name, values in found.items()}
            cache.get(feature_key(extractor, digest), lambda features=features: features)  # type: ignore[misc]
        done(len(chunk))
