"""Registers the base model ``flux2-klein`` and describes it; torch is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from cldistill.component import Component
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel
from cldistill_plugins.diffusers_base.api import ATTENTION, FluxSettings, ModelName, flux_base, flux_names

FEED_FORWARD = ("linear_in", "linear_out")
TARGETS = (
    *ATTENTION, *(f"{ff}.{layer}" for ff in ("ff", "ff_context") for layer in FEED_FORWARD), "to_qkv_mlp_proj", "to_out",
)  # fmt: skip
"""Every linear layer of a block: what the family's trainers adapt."""
MODULATIONS = ("single_stream_modulation", "double_stream_modulation_img", "double_stream_modulation_txt")
NAMES = flux_names(
    FEED_FORWARD, "time_guidance_embed.timestep_embedder",
    {
        "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_qkv_mlp_proj",
        "single_blocks.{}.linear2": "single_transformer_blocks.{}.attn.to_out",
        **{f"{name}.lin": f"{name}.linear" for name in MODULATIONS},
    },
)  # fmt: skip


def stock_shift(tokens: int, steps: int) -> float:
    """Return ``exp(mu)`` of the stock pipeline's schedule: 9.66 at 8 steps and 8.02 at 40 for 1024 x 1024."""
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return exp(many)
    few = 8.73809524e-05 * tokens + 1.89833333
    slope = (many - few) / 190.0
    return exp(slope * steps + many - 200.0 * slope)


class Flux2KleinSettings(FluxSettings):
    """Options of ``base: {use: flux2-klein}``."""

    transformer = "Flux2Transformer2DModel"
    implementation = "cldistill_plugins.flux2_klein.base:Flux2Klein"
    names = NAMES
    shift = stock_shift
    model: ModelName = "black-forest-labs/FLUX.2-klein-base-4B"
    targets: tuple[str, ...] = TARGETS


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """Offer FLUX.2-klein-base-4B and 9B, and anything in the same diffusers layout."""
    summary = "FLUX.2-klein-base-4B/9B or a folder of the same classes, through diffusers' Flux2KleinPipeline"
    return [flux_base("flux2-klein", summary, Flux2KleinSettings)]
