"""From items on disk to encoded examples: every encoding is computed once and cached under a hash of what it depends on.

* a source, and the geometry that follows from it: the base's fingerprint and the bytes of its picture(s);
* a prompt: those and the text, or the text alone where the base's prompts see no pictures;
* a pair's target: those and the bytes of the after-picture;
* a teacher's target: the teacher's digest, prompt, sampler, guidance and seed.

So an edited picture, prompt or base invalidates exactly what it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cldistill.data.dataset import Example
from cldistill.data.items import open_picture
from cldistill.protocols import BaseModel
from cldistill.records import Item, Prompts, Tensors
from cldistill.storage.files import file_digest
from cldistill.storage.tensors import TensorCache, content_key

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class ItemGeometry:
    """Latent shape and batch key of an item, by which batches are made.

    Kept apart from the source, so that a run need not read 20,000 of those to begin.
    """

    shape: tuple[int, ...]
    """Of one latent, without the batch axis."""
    batch_key: tuple[int, ...]


class Encoder:
    """Encodes items with one base through the cache."""

    def __init__(self, base: BaseModel, cache: TensorCache) -> None:
        self.base = base
        self.cache = cache
        self._digests: dict[Path, str] = {}

    def example(self, item: Item, prompts: Prompts) -> Example:
        """Return the example of an item, its encodings computed when first asked for; ``target`` is not set."""
        geometry = self.geometry(item)
        return Example(
            item=item,
            shape=geometry.shape,
            batch_key=geometry.batch_key,
            source=lambda: self.source(item),
            student=lambda: self.prompt(item, prompts.student),
            teacher=lambda: self.prompt(item, prompts.teacher),
            unconditional=lambda: self.prompt(item, prompts.unconditional if self.guided else prompts.teacher),
        )

    def texts(self, prompts: Prompts) -> tuple[str, ...]:
        """Return the different prompts of an example that are ever asked for."""
        unconditional = [prompts.unconditional] if self.guided else []
        return tuple(dict.fromkeys((prompts.student, prompts.teacher, *unconditional)))

    def ensure(self, rows: Sequence[tuple[Item, Prompts]]) -> None:
        """Encode what the cache lacks of rows that nobody prepared, and give the encoders' memory back."""
        before = self.cache.computed
        for item, prompts in rows:
            self.encode(item, prompts)
        if self.cache.computed > before:
            self.base.drop_encoders()

    def encode(self, item: Item, prompts: Prompts) -> None:
        """Encode what the cache lacks of one item; what it has is not read."""
        if not self.cache.has(self._source_key(item)):
            self.source(item)
        self.geometry(item)
        for text in self.texts(prompts):
            if not self.cache.has(self._prompt_key(item, text)):
                self.prompt(item, text)

    @property
    def guided(self) -> bool:
        """Return whether anything will ask for the unconditional prompt; without guidance it is not even encoded."""
        return self.base.guidance_scale != 1.0 or self.base.target_guidance_scale != 1.0

    def source(self, item: Item) -> Tensors:
        """Encode the reference picture(s)."""
        return self.cache.get(self._source_key(item), lambda: self.base.encode_source(self.pictures(item)))

    def geometry(self, item: Item) -> ItemGeometry:
        """Return the latent's shape and the batch key that belong to the item's source."""

        def measure() -> dict[str, Tensor]:
            source = self.source(item)
            found = {"shape": self.base.latent_shape(source), "batch_key": self.base.batch_key(source)}
            return {name: torch.tensor(values, dtype=torch.int64) for name, values in found.items()}

        kept = self.cache.get(content_key("geometry", self.base.fingerprint, *self._sources(item)), measure)
        return ItemGeometry(tuple(kept["shape"].tolist()), tuple(kept["batch_key"].tolist()))

    def prompt(self, item: Item, text: str) -> Tensors:
        """Encode a prompt together with the reference picture(s)."""
        key = self._prompt_key(item, text)
        return self.cache.get(key, lambda: self.base.encode_prompt(text, self.pictures(item)))

    def pair_target(self, item: Item) -> Tensor:
        """Encode the after-picture of a pair."""
        path = item.target
        assert path is not None, f"{item.key} has no after-picture"
        key = content_key("target", self.base.fingerprint, self.file_digest(path), *self._sources(item))
        encoded = self.cache.get(key, lambda: {"x0": self.base.encode_target(open_picture(path), self.pictures(item))})
        return encoded["x0"]

    def item_digest(self, item: Item) -> str:
        """Hash what the item shows and says."""
        return content_key(item.prompt, *self._sources(item))

    @staticmethod
    def pictures(item: Item) -> Sequence[Image]:
        """Open the reference picture(s) of an item."""
        return [open_picture(path) for path in item.sources]

    def _source_key(self, item: Item) -> str:
        return content_key("source", self.base.fingerprint, *self._sources(item))

    def _prompt_key(self, item: Item, text: str) -> str:
        seen = self._sources(item) if self.base.prompt_sees_pictures else ("alone",)
        return content_key("prompt", self.base.fingerprint, text, *seen)

    def _sources(self, item: Item) -> Sequence[str]:
        return [self.file_digest(path) for path in item.sources]

    def file_digest(self, path: Path) -> str:
        """Hash a file once."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]
