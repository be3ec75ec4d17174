"""An exported collection in three lines: load, generate, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from pydantic import ValidationError

from cldistill.adapters.files import load_adapter
from cldistill.adapters.hub import local_path
from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import TEACHER, AdapterSlots
from cldistill.catalogue import load_catalogue
from cldistill.collection.index import CollectionEffect, CollectionIndex, read_index
from cldistill.component import BuildContext
from cldistill.data.dataset import on_device
from cldistill.data.items import open_picture
from cldistill.errors import CollectionError
from cldistill.manifest.messages import first_problem
from cldistill.sampling.samplers import few_step, predictor

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill.protocols import BaseModel

ASPECT_TOLERANCE = 0.01
"""Outputs whose aspect is this near to the input's are left as the base made them."""

Picture: TypeAlias = "Image | Path | str"


class Collection:
    """A base model with a collection's LoRA mounted.

    >>> collection = Collection.load("out/collection")
    >>> collection.generate("cat.png", "manga-tone", seed=7).save("out.png")
    """

    def __init__(self, index: CollectionIndex, base: BaseModel, device: str = "cpu") -> None:
        """Mount the collection's LoRA on ``base``, whose backbone carries no other adapters.

        Raises `cldistill.errors.AdapterFormatError` if the file does not fit the base.
        """
        self.index = index
        self.base = base
        self.device = device
        adapter = load_adapter(index.file, linear_shapes(base.backbone))
        self._slots = AdapterSlots(base.backbone)
        self._slots.mount(adapter)

    @classmethod
    def load(
        cls,
        path: Path | str,
        base: str | None = None,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Collection:
        """Load a collection and the base that its header names.

        Args:
            path: Folder of the collection, its weights file, or its hub id, ``OWNER/NAME[@REVISION]``.
            base: Hub id or folder of the base model, where it is not the one in the header.
            device: By default a GPU where there is one.
            options: Further options of the base, over those in the header (``{"dtype": "float32"}``).

        Raises:
            CollectionError: the collection is damaged, its local base is not given (``base``), or ``base`` has other weights.
        """
        index = read_index(local_path(path))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(index, build_base(index, base, device, options or {}), device)

    @property
    def effects(self) -> tuple[CollectionEffect, ...]:
        """The effects, with triggers and prompts."""
        return self.index.effects

    @torch.no_grad()
    def generate(
        self, image: Picture | Sequence[Picture], effects: str | Sequence[str], seed: int = 0, steps: int | None = None
    ) -> Image:
        """Return the picture with one effect, or with several applied in order, at its own aspect.

        Args:
            image: A picture or its path, of any size and mode; or several references, of which the last is edited.
            effects: Name or names of effects.
            seed: The same seed gives the same picture.
            steps: Sampling steps, where not the collection's own.

        Raises:
            CollectionError: unknown effect, with the nearest name.
            DataError: missing or unreadable picture.
        """
        prompt = self.index.prompt([effects] if isinstance(effects, str) else effects)
        return self.apply(image, prompt, seed, steps)

    @torch.no_grad()
    def apply(self, image: Picture | Sequence[Picture], prompt: str, seed: int = 0, steps: int | None = None) -> Image:
        """Return the picture edited as ``prompt`` says: a collection keeps the base's general instructions, too."""
        given = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
        pictures = [open_picture(picture) for picture in given]
        if not pictures:
            raise CollectionError("generate needs at least one picture")
        if steps is not None and steps < 1:
            raise CollectionError(f"steps must be at least 1, not {steps}")
        encoded = self.base.encode_source(pictures)
        source = on_device(self.base.collate([encoded]), self.device)
        text = on_device(self.base.collate([self.base.encode_prompt(prompt, pictures)]), self.device)
        schedule = replace(self.index.schedule, steps=steps or self.index.schedule.steps)
        shape = (1, *self.base.latent_shape(encoded))
        generator = torch.Generator().manual_seed(seed)
        with self._slots.scope(TEACHER):
            x0 = few_step(
                predictor(self.base, source, text), schedule,
                lambda step: torch.randn(shape, generator=generator).to(self.device),
            )  # fmt: skip
        return at_aspect(self.base.decode(x0, source)[0], pictures[-1])


def build_base(index: CollectionIndex, model: str | None, device: str, options: Mapping[str, Any]) -> BaseModel:
    """Build the base that a collection names, through the plugin that it names."""
    component = load_catalogue().get("base_model", index.base_plugin).component
    merged = {**index.base_options, **({} if model is None else {"model": model}), **options}
    if model is None and "model" not in merged and "model" in component.settings.model_fields:
        raise CollectionError(
            f"{index.file}: was made on the local base model {index.base!r}; say where it lies "
            "(--base FOLDER, or Collection.load(..., base=FOLDER))"
        )
    try:
        settings = component.settings.model_validate(merged, context={"root": Path.cwd()})
    except ValidationError as error:
        where = f"{index.file}: options of the base {index.base_plugin!r}"
        raise CollectionError(f"{where}: {first_problem(error)}") from error
    folder = index.file.parent
    context = BuildContext(root=folder, cache=folder, output=folder, device=device)
    base: BaseModel = component.build(settings, context)
    if model is not None and not options:  # options change a fingerprint, and are the caller's own affair
        index.must_be_of(base.fingerprint)
    base.to(device)
    return base


def at_aspect(picture: Image, like: Image) -> Image:
    """Undo the rounding of sizes to whole tokens: resize to the aspect of ``like``, keeping the area."""
    aspect, wanted = picture.width / picture.height, like.width / like.height
    if abs(aspect / wanted - 1.0) <= ASPECT_TOLERANCE:
        return picture
    area = picture.width * picture.height
    return picture.resize((max(1, round((area * wanted) ** 0.5)), max(1, round((area / wanted) ** 0.5))))
