"""``flux2-klein`` against the stock pipeline that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image

from cldistill.adapters.inject import linear_shapes
from cldistill.sampling import samplers
from cldistill.schedule import Schedule
from cldistill.testing import check_base_model
from cldistill_plugins.flux2_klein.base import Flux2Klein
from cldistill_plugins.flux2_klein.plugin import Flux2KleinSettings, describe, register_base_models, stock_shift

(COMPONENT,) = register_base_models()
PROMPT = "turn the picture into manga"


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def stock(folder: Path) -> Any:
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
def test_guided_euler_equals_the_stock_pipeline(base: Flux2Klein, folder: Path) -> None:
    pictures = [picture(1, 70, 100), picture(2, 96, 64)]
    source = base.collate([base.encode_source(pictures)])
    prompt, empty = (base.collate([base.encode_prompt(text, pictures)]) for text in (PROMPT, ""))
    shape = base.latent_shape(base.encode_source(pictures))
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    rows, columns = source["shapes"][0, 0].tolist()
    schedule = Schedule(4, stock_shift(shape[0], 4))
    with torch.no_grad():
        predict = samplers.guided(base, source, prompt, empty, 4.0, "standard")
        x0 = samplers.euler(predict, schedule.sigmas(), noise)
    ours = np.asarray(base.decode(x0, source)[0], float) / 255
    theirs = stock(folder)(
        image=pictures, prompt=PROMPT, num_inference_steps=4, guidance_scale=4.0, max_sequence_length=48,
        latents=noise.transpose(1, 2).reshape(1, -1, rows, columns), output_type="np",
    ).images[0]  # fmt: skip
    assert theirs.std() > 0.05 and np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-3


@pytest.mark.slow
def test_it_conforms(options: dict[str, object]) -> None:
    check_base_model(COMPONENT, options, size=(64, 64))


@pytest.mark.parametrize("size", ["4B", "9B"])
def test_what_is_shipped_of_a_hub_id_is_the_real_model(size: str) -> None:
    settings = Flux2KleinSettings(model=f"black-forest-labs/FLUX.2-klein-base-{size}")
    described = describe(settings).base
    assert described is not None and described.shift is not None
    backbone = Flux2Klein(settings, describe(settings), weights=False).backbone
    assert linear_shapes(backbone) == described.modules
    assert sum(parameter.numel() for parameter in backbone.parameters()) == described.parameters
    assert [round(described.shift(described.latent_tokens, steps), 2) for steps in (8, 40, 50)] == [9.66, 8.02, 7.56]
