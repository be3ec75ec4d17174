"""Registers the base model ``flux-kontext`` and describes it; torch is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from pydantic import Field

from cldistill.component import Component
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel
from cldistill_plugins.diffusers_base.api import ATTENTION, FluxSettings, ModelName, flux_base, flux_names

FEED_FORWARD = ("net.0.proj", "net.2")
TARGETS = (
    *ATTENTION, *(f"{ff}.{layer}" for ff in ("ff", "ff_context") for layer in FEED_FORWARD), "proj_mlp",
    "single_transformer_blocks.*.proj_out", "norm1.linear", "norm1_context.linear", "norm.linear",
)  # fmt: skip
"""Every linear layer of a block."""
SINGLE, TIME = "single_transformer_blocks.{}.", "time_text_embed."
NAMES = flux_names(
    FEED_FORWARD, TIME + "timestep_embedder",
    {
        "single_blocks.{}.linear1": [SINGLE + name for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")],
        "single_blocks.{}.linear2": SINGLE + "proj_out",
        "single_blocks.{}.modulation.lin": SINGLE + "norm.linear",
        "double_blocks.{}.img_mod.lin": "transformer_blocks.{}.norm1.linear",
        "double_blocks.{}.txt_mod.lin": "transformer_blocks.{}.norm1_context.linear",
        **{f"{part}_in.{side}_layer": f"{TIME}{name}_embedder.linear_{index}"
           for part, name in (("vector", "text"), ("guidance", "guidance")) for index, side in ((1, "in"), (2, "out"))},
    },
)  # fmt: skip


def stock_shift(tokens: int, steps: int) -> float:
    """Return ``exp(mu)`` of the stock pipeline's schedule: 3.16 at 1024 x 1024, whatever the steps."""
    return exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


class FluxKontextSettings(FluxSettings):
    """Options of ``base: {use: flux-kontext}``."""

    transformer = "FluxTransformer2DModel"
    implementation = "cldistill_plugins.flux_kontext.base:FluxKontext"
    names = NAMES
    shift = stock_shift
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    model: ModelName = "black-forest-labs/FLUX.1-Kontext-dev"
    embedded_guidance: float = Field(default=2.5, ge=0.0)
    """Guidance that the distilled model is told (the stock pipeline's ``guidance_scale``); it costs no second call."""
    guidance_scale: float = Field(default=1.0, ge=1.0)
    """Guidance of the teacher inside the DMD losses, by a second call; 1: the embedded one alone."""
    target_guidance_scale: float = Field(default=1.0, ge=1.0)
    """The same for targets and grids (the stock pipeline's ``true_cfg_scale``)."""
    targets: tuple[str, ...] = TARGETS


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """Offer FLUX.1-Kontext-dev, and anything in the same diffusers layout."""
    summary = "FLUX.1-Kontext-dev or a folder of the same classes, through diffusers' FluxKontextPipeline"
    return [flux_base("flux-kontext", summary, FluxKontextSettings)]
