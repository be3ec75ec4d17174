"""From items on disk to encoded examples: every encoding is computed once and cached under a hash of what it depends on.

* a source: the base's fingerprint and the bytes of its picture(s);
* a prompt: those and the text;
* a pair's target: those and the bytes of the after-picture;
* a teacher's target: the teacher's digest, prompt, sampler, guidance and seed.

So an edited picture, prompt or base invalidates exactly what it must.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.cache import TensorCache, content_key, file_digest
from cldistill.data import open_picture
from cldistill.dataset import Example
from cldistill.protocols import BaseModel
from cldistill.records import Item, Prompts, Tensors

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class Encoder:
    """Encodes items with one base through the cache."""

    def __init__(self, base: BaseModel, cache: TensorCache) -> None:
        self.base = base
        self.cache = cache
        self._digests: dict[Path, str] = {}

    def example(self, item: Item, prompts: Prompts) -> Example:
        """Return the example of an item, its encodings computed when first asked for; ``target`` is not set."""
        return Example(
            item=item,
            shape=self.base.latent_shape(self.source(item)),
            source=lambda: self.source(item),
            student=lambda: self.prompt(item, prompts.student),
            teacher=lambda: self.prompt(item, prompts.teacher),
            unconditional=lambda: self.prompt(item, prompts.unconditional if self.guided else prompts.teacher),
        )

    @property
    def guided(self) -> bool:
        """Whether anything will ask for the unconditional prompt; without guidance it is not even encoded."""
        return self.base.guidance_scale != 1.0 or self.base.target_guidance_scale != 1.0

    def source(self, item: Item) -> Tensors:
        """Encode the reference picture(s)."""
        key = content_key("source", self.base.fingerprint, *self._sources(item))
        return self.cache.get(key, lambda: self.base.encode_source(self.pictures(item)))

    def prompt(self, item: Item, text: str) -> Tensors:
        """Encode a prompt together with the reference picture(s)."""
        key = content_key("prompt", self.base.fingerprint, text, *self._sources(item))
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

    def pair_digest(self, item: Item) -> str:
        """Hash an item together with its after-picture."""
        assert item.target is not None
        return content_key(self.item_digest(item), self.file_digest(item.target))

    @staticmethod
    def pictures(item: Item) -> Sequence[Image]:
        """Open the reference picture(s) of an item."""
        return [open_picture(path) for path in item.sources]

    def _sources(self, item: Item) -> Sequence[str]:
        return [self.file_digest(path) for path in item.sources]

    def file_digest(self, path: Path) -> str:
        """Hash a file once."""
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]
