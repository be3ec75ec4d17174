"""``flux-kontext`` against the stock pipeline that it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from PIL import Image

from cldistill.adapters.inject import linear_shapes
from cldistill.sampling import samplers
from cldistill.schedule import Schedule
from cldistill.testing import check_base_model
from cldistill_plugins.flux_kontext.base import FluxKontext
from cldistill_plugins.flux_kontext.plugin import FluxKontextSettings, describe, register_base_models, stock_shift

(COMPONENT,) = register_base_models()
PROMPT = "turn the picture into manga"


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def stock(folder: Path) -> Any:
    pipeline = FluxKontextPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.slow
def test_guided_euler_equals_the_stock_pipeline(base: FluxKontext, folder: Path) -> None:
    shown = picture(1, 64, 112)  # one of the preferred aspects, so that nothing is resized but by the base's own rule
    (size, _) = base.sizes([shown])
    shown = shown.resize(size)
    source = base.collate([base.encode_source([shown])])
    prompt, other = (base.collate([base.encode_prompt(text, [shown])]) for text in (PROMPT, "no"))
    shape = base.latent_shape(base.encode_source([shown]))
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predict = samplers.guided(base, source, prompt, other, 3.0, "standard")
        x0 = samplers.euler(predict, Schedule(4, stock_shift(shape[0], 4)).sigmas(), noise)
    ours = np.asarray(base.decode(x0, source)[0], float) / 255
    theirs = stock(folder)(
        image=shown, prompt=PROMPT, negative_prompt="no", num_inference_steps=4, guidance_scale=2.5, true_cfg_scale=3.0,
        max_sequence_length=32, latents=noise, width=size[0], height=size[1], max_area=size[0] * size[1],
        _auto_resize=False, output_type="np",
    ).images[0]  # fmt: skip
    assert theirs.std() > 0.05 and np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-3


@pytest.mark.slow
def test_it_conforms(options: dict[str, object]) -> None:
    check_base_model(COMPONENT, options, size=(64, 64))


def test_what_is_shipped_of_the_hub_id_is_the_real_model() -> None:
    settings = FluxKontextSettings()
    described = describe(settings).base
    assert described is not None and described.shift is not None
    backbone = FluxKontext(settings, describe(settings), weights=False).backbone
    assert linear_shapes(backbone) == described.modules
    assert sum(parameter.numel() for parameter in backbone.parameters()) == described.parameters
    assert round(described.shift(described.latent_tokens, 28), 2) == 3.16
    assert {name for name in described.modules if ".0." in name or name.endswith("proj_out")} - {"proj_out"} - {
        name for name in described.modules if "_embed" in name
    } <= set(described.targets)
