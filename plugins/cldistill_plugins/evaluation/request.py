"""The request that every metric is handed: items, the systems' pictures, and what it may use beside them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from cldistill.protocols import BaseModel
from cldistill.records import EffectInfo, Item, Prompts
from cldistill.sampling.image_generator import SAMPLE_BATCH
from cldistill.storage.tensors import content_key
from cldistill_plugins.evaluation.picture_store import Pictures
from cldistill_plugins.evaluation.values import ValueStore

if TYPE_CHECKING:
    from PIL.Image import Image

MEMORY_LIMIT = 256 * 1024**2
"""Bytes of reconstructed pictures that stay in memory."""

T = TypeVar("T")


class VaeReconstruction:
    """Passes pictures through a base's VAE; several metrics ask for the same ones, so the last ones are kept."""

    def __init__(self, base: BaseModel, memory_limit: int = MEMORY_LIMIT) -> None:
        self.base = base
        self._limit = memory_limit
        self._kept: OrderedDict[bytes, Image] = OrderedDict()
        self._bytes = 0

    def __call__(self, pictures: Sequence[Image]) -> list[Image]:
        """Return what the VAE makes of each picture, in the geometry of the base."""
        names = [hashlib.sha256(repr(p.size).encode() + p.tobytes()).digest() for p in pictures]
        found = {name: self._kept[name] for name in names if name in self._kept}
        missing = {name: p for name, p in zip(names, pictures, strict=True) if name not in found}
        for chunk in batched(missing.items(), SAMPLE_BATCH):
            made = self._through([picture for _, picture in chunk])
            for (name, _), picture in zip(chunk, made, strict=True):
                found[name] = picture
                self._keep(name, picture)
        return [found[name] for name in names]

    def _keep(self, name: bytes, picture: Image) -> None:
        self._kept[name] = picture
        self._bytes += _size(picture)
        while self._bytes > self._limit and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)

    @torch.no_grad()
    def _through(self, pictures: Sequence[Image]) -> list[Image]:
        if len({picture.size for picture in pictures}) > 1:
            return [made for picture in pictures for made in self._through([picture])]
        source = self.base.collate([self.base.encode_source([picture]) for picture in pictures])
        latents = torch.stack([self.base.encode_target(picture, [picture]) for picture in pictures])
        return self.base.decode(latents, source)


def _size(picture: Image) -> int:
    return picture.width * picture.height * 3


def batched(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` entries."""
    rest = iter(entries)
    while chunk := list(islice(rest, size)):
        yield chunk


@dataclass(frozen=True)
class EvaluationRequest:
    """The request of an evaluation to its metrics (implements `cldistill.protocols.MetricRequest`), made by the evaluator."""

    effects: Sequence[EffectInfo]
    prompts: Mapping[str, Prompts]
    items: Mapping[str, Sequence[Item]]
    outputs: Mapping[str, Mapping[str, Pictures]]
    reference: str | None
    cache: Path
    reconstruction: VaeReconstruction = field(repr=False)
    values: ValueStore = field(repr=False)
    identity: str = ""
    """Of the metric that is asked: the beginning of what it remembers things by."""
    advance: Callable[[float], None] = lambda share: None

    @property
    def digests(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Hashes of the pictures."""
        return {s: {pool: made.digests for pool, made in pools.items()} for s, pools in self.outputs.items()}

    @property
    def base_digest(self) -> str:
        """Hash of the base's weights and geometry."""
        return self.reconstruction.base.fingerprint

    def remember(self, key: Sequence[str | int | float], make: Callable[[], Any]) -> Any:
        """Return ``make()``, or what it returned for that key in an earlier evaluation."""
        return self.values.get(content_key("remembered", self.identity, *key), make)

    def reconstruct(self, pictures: Sequence[Image]) -> list[Image]:
        """Pass pictures through the base's VAE."""
        return self.reconstruction(pictures)
