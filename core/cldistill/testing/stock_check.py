"""The comparison of a base model with its family's own pipeline: same weights, same noise, same picture."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
import torch
from PIL.Image import Image, Resampling, frombytes
from torch import Tensor

from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.component import AnyComponent, BuildContext, Settings
from cldistill.protocols import BaseModel
from cldistill.sampling.samplers import euler, predictor
from cldistill.testing.adapters import randomise_slot
from cldistill.testing.conformance import Checker

if TYPE_CHECKING:
    from cldistill.records import Tensors

PROMPT = "turn the picture into manga"
STEPS = 3
LEVEL = 1e-3 + 0.5 / 255
"""Largest difference of two pictures in 0..1: half a level of the one that is rounded to 256, and 1e-3."""
VISIBLE = 0.01
"""The least contrast and change at which a comparison says anything."""


@dataclass(frozen=True)
class StockRequest:
    """One picture that the family's own pipeline is to make, without guidance."""

    pictures: Sequence[Image]
    """The references."""
    prompt: str
    noise: Tensor
    """``[1, ...]``, in the layout of the base's latents."""
    size: tuple[int, int]
    """Width and height of the output."""
    steps: int
    lora: Path | None
    """A file to load first by the pipeline's ``load_lora_weights``."""


@dataclass(frozen=True)
class StockPicture:
    """The answer: the picture ``[H, W, 3]`` in 0..1 (``output_type="np"``), and the sigmas of its steps, without the last 0."""

    pixels: np.ndarray[Any, Any]
    sigmas: Tensor


Stock = Callable[[StockRequest], StockPicture]


def compare_with_stock(
    checker: Checker, component: AnyComponent, settings: Settings, context: BuildContext, stock: Stock, *,
    size: tuple[int, int], references: int = 2,
) -> None:  # fmt: skip
    """Make pictures by the base and by the stock pipeline, and compare them; see `cldistill.testing.check_base_model`."""
    base: BaseModel = component.build(settings, context)
    base.backbone.requires_grad_(False)
    base.load_encoders()
    tall, wide = _shown(1, (size[0], 2 * size[1])), _shown(2, (2 * size[0], size[1]))
    first = _compare(checker, base, stock, [tall], "of one reference")
    checker.require(float(first.std()) > VISIBLE, "the stock pipeline's picture has no contrast: amplify its decoder")
    if references > 1:
        second = _compare(checker, base, stock, [tall, wide], "of two references")
        changed = first.shape != second.shape or float(np.abs(first - second).max()) > VISIBLE
        checker.require(changed, "the stock pipeline does not see the second reference: give references=1")
    _same_target(checker, base, tall, _shown(6, size))
    slots = AdapterSlots(base.backbone)
    slots.add("student", base.adapter_targets, 2, 2.0, torch.Generator().manual_seed(0))
    randomise_slot(base, slots, "student")
    file = context.root / "stock.safetensors"
    save_adapter(file, base, slots.state("student"), 2, 2.0)
    with slots.scope("student"):
        adapted = _compare(checker, base, stock, [tall], "with an exported LoRA", file)
    checker.require(
        float(np.abs(first - adapted).max()) > VISIBLE,
        "the stock pipeline makes the same picture with an exported LoRA as without: check the keys of export_state",
    )
    slots.release()
    _options(checker, component, settings, context, base)


def _shown(seed: int, size: tuple[int, int]) -> Image:
    """Return a picture with detail, whose rows and columns differ."""
    width, height = size[0] // 8, size[1] // 8
    pixels = random.Random(seed).randbytes(3 * width * height)
    return frombytes("RGB", (width, height), pixels).resize(size, Resampling.BICUBIC)


def _compare(
    checker: Checker, base: BaseModel, stock: Stock, pictures: Sequence[Image], what: str, lora: Path | None = None
) -> np.ndarray[Any, Any]:
    encoded = base.encode_source(pictures)
    source, prompt = base.collate([encoded]), base.collate([base.encode_prompt(PROMPT, pictures)])
    noise = torch.randn((1, *base.latent_shape(encoded)), generator=torch.Generator().manual_seed(3))
    size = base.decode(noise, source)[0].size
    try:
        theirs = stock(StockRequest(pictures, PROMPT, noise, size, STEPS, lora))
    except Exception as error:
        if lora is None:
            raise
        checker.fail(f"the stock pipeline refuses an exported LoRA ({error}); check the keys of export_state")
    pixels = np.asarray(theirs.pixels, np.float64)
    with torch.no_grad():
        x0 = euler(predictor(base, source, prompt), theirs.sigmas.float(), noise)
    ours = np.asarray(base.decode(x0, source)[0], np.float64) / 255
    checker.require(
        ours.shape == pixels.shape, f"its picture {what} is {ours.shape}, the stock pipeline's {pixels.shape}"
    )
    off = float(np.abs(ours - pixels).max())
    checker.require(
        off <= LEVEL,
        f"its picture {what} differs from the stock pipeline's by {off:.3g} of the range: look at the velocity's sign, the "
        "timestep's scale, the places and number of references, the latents' normalisation, rows and columns, the mode of the "
        "VAE's posterior, and the keys of export_state",
    )
    return pixels


def _same_target(checker: Checker, base: BaseModel, shown: Image, other: Image) -> None:
    """An after-picture lies in the geometry of its references, whatever its own size."""
    shape, found = base.latent_shape(base.encode_source([shown])), tuple(base.encode_target(other, [shown]).shape)
    checker.require(
        found == shape,
        f"encode_target lays a picture of another size out as {found}, by its own size: its references' output is {shape}",
    )


def _options(
    checker: Checker, component: AnyComponent, settings: Settings, context: BuildContext, base: BaseModel
) -> None:
    """Each option that changes an encoding or a prediction must change the fingerprint."""
    before = _evidence(base, None)
    for name, other in _variants(settings):
        try:
            changed: BaseModel = component.build(settings.model_copy(update={name: other}), context)
            after = _evidence(changed, base)
        except Exception:
            continue  # no model of this size can have it
        same = before.keys() == after.keys() and all(
            before[key].shape == after[key].shape and torch.equal(before[key], after[key]) for key in before
        )
        checker.require(
            same or changed.fingerprint != base.fingerprint,
            f"its fingerprint ignores the option {name!r}, which changes what it encodes or predicts: the cache would be wrong",
        )


def _variants(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield other values of the options, but of those that say in ``json_schema_extra`` that they change the speed alone."""
    for name, field in type(settings).model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("speed"):
            continue
        value, kind = getattr(settings, name), field.annotation
        if isinstance(value, bool):
            yield name, not value
        elif isinstance(value, int):
            yield name, 2 * value
        elif isinstance(value, float):
            yield name, value + 1.0
        elif get_origin(kind) is Literal:
            yield from ((name, choice) for choice in get_args(kind)[:2] if choice != value)


def _evidence(base: BaseModel, like: BaseModel | None) -> Mapping[str, Tensor]:
    shown = [_shown(4, (80, 112))]
    source, prompt = base.encode_source(shown), base.encode_prompt(PROMPT, shown)
    noise = torch.randn((1, *base.latent_shape(source)), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        v = base.predict(noise, torch.tensor([0.3137]), base.collate([source]), base.collate([prompt]))
    parts: dict[str, Tensors] = {"source": source, "prompt": prompt}
    found = {f"{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    return {**found, "velocity": v, "target": base.encode_target(shown[0], shown)}
