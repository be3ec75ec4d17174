"""Prompt and pictures to what the text encoder reads: token ids and patches.

Transformers' own ``Qwen2VLProcessor`` cannot be loaded without torchvision, which it needs for videos; no prompt here has
one.  This processor gives the same ids and the same patches, bit for bit, with torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from pydantic import PositiveFloat, PositiveInt, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn import functional
from transformers import BatchFeature, Qwen2Tokenizer

from cldistill.errors import OptionsError
from cldistill_plugins.diffusers_base.api import read_config

IMAGE_TOKEN = "<|image_pad|>"
CONFIGS = ("processor/processor_config.json", "processor/preprocessor_config.json")
"""Files in which transformers 5 and 4 keep the settings of picture preparation."""


@dataclass(frozen=True)
class PictureConfig:
    """Settings by which pictures are cut into patches, read from the model's folder; the defaults are transformers' own."""

    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.26862954, 0.26130258, 0.27577711)
    rescale_factor: PositiveFloat = 1 / 255
    patch_size: PositiveInt = 14
    temporal_patch_size: PositiveInt = 2
    merge_size: PositiveInt = 2
    min_pixels: PositiveInt = 56 * 56
    max_pixels: PositiveInt = 28 * 28 * 1280


def read_picture_config(folder: Path) -> PictureConfig:
    """Read the config of a pipeline folder.

    Raises `OptionsError` where it has none, or one that is damaged.
    """
    told = read_config(folder, *CONFIGS)
    try:
        told = told.get("image_processor", told)
        size = told.get("size") or {}
        edges = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}
        given = {field.name: told.get(field.name) or edges.get(field.name) for field in fields(PictureConfig)}
        return TypeAdapter(PictureConfig).validate_python({name: value for name, value in given.items() if value})
    except (AttributeError, ValidationError) as error:
        raise OptionsError(
            f"base model: {folder}: the settings of pictures in its processor/ cannot be used ({error}); fetch it again"
        ) from error


class PromptProcessor:
    """Stands in for ``Qwen2VLProcessor`` in the stock pipeline, which calls it with one prompt and its pictures."""

    def __init__(self, tokenizer: Qwen2Tokenizer, config: PictureConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def __call__(self, text: Sequence[str], images: Sequence[Image] | None = None, **options: Any) -> BatchFeature:
        """Return ``input_ids``, ``attention_mask`` ``[B, T]``, ``pixel_values`` ``[patches, D]`` and ``image_grid_thw``.

        Args:
            text: Prompts, with one `IMAGE_TOKEN` for each picture in the order of ``images``.
            options: The tokenizer's own (``padding``, ``return_tensors``).
        """
        patches = [self._patches(picture) for picture in images or ()]
        grids = [grid for _, grid in patches]
        counts = iter([rows * columns // self.config.merge_size**2 for _, rows, columns in grids])
        found: dict[str, Any] = dict(self.tokenizer([self._expand(one, counts) for one in text], **options))
        if patches:
            found["pixel_values"] = torch.cat([values for values, _ in patches])
            found["image_grid_thw"] = torch.tensor(grids)
        return BatchFeature(found)

    @staticmethod
    def _expand(text: str, counts: Any) -> str:
        """Repeat each `IMAGE_TOKEN` as often as its picture has merged patches."""
        first, *others = text.split(IMAGE_TOKEN)
        return first + "".join(IMAGE_TOKEN * next(counts) + part for part in others)

    def _patches(self, picture: Image) -> tuple[Tensor, list[int]]:
        """Return a picture's patches ``[rows * columns, 3 * 2 * 14 * 14]``, and ``[1, rows, columns]``."""
        config = self.config
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous().unsqueeze(0)
        size = _smart_size(pixels.shape[-2], pixels.shape[-1], config)
        if size != tuple(pixels.shape[-2:]):  # in whole levels from 0 to 255, as torchvision resizes pictures
            pixels = functional.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v) * (1.0 / config.rescale_factor) for v in (config.image_mean, config.image_std))
        values = (pixels[0].float() - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        rows, columns = (side // config.patch_size for side in size)
        merge, patch = config.merge_size, config.patch_size
        squares = values.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        ordered = squares.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(
            5
        )  # merged rows and columns, those inside, colour, patch
        repeated = ordered.expand(-1, -1, -1, -1, -1, config.temporal_patch_size, -1, -1)
        return repeated.reshape(rows * columns, -1), [1, rows, columns]


def _smart_size(height: int, width: int, config: PictureConfig) -> tuple[int, int]:
    """Return the nearest height and width in whole merged patches whose area lies within the config's bounds."""
    if max(height, width) > 200 * min(height, width):
        raise OptionsError(f"a picture of {width} x {height} is too long: at most 200 to 1")
    factor = config.patch_size * config.merge_size
    sides = [round(side / factor) * factor for side in (height, width)]
    if sides[0] * sides[1] > config.max_pixels:
        scale = math.sqrt(height * width / config.max_pixels)
        sides = [max(factor, math.floor(side / scale / factor) * factor) for side in (height, width)]
    elif sides[0] * sides[1] < config.min_pixels:
        scale = math.sqrt(config.min_pixels / (height * width))
        sides = [math.ceil(side * scale / factor) * factor for side in (height, width)]
    return sides[0], sides[1]
