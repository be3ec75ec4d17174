"""Registers the base model ``flux2-klein`` and describes it; torch is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, base_model
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel
from cldistill_plugins.diffusers_base.api import DiffusersFolder, DiffusersSettings, ModelName, describe_folder

TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "ff.linear_in",
    "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out", "to_qkv_mlp_proj", "to_out",
)  # fmt: skip
"""Every linear layer of a block: what the family's trainers adapt."""
_DOUBLE = "transformer_blocks.{}."
NAMES: dict[str, str | tuple[str, ...]] = {
    "double_blocks.{}.img_attn.qkv": tuple(f"{_DOUBLE}attn.to_{part}" for part in "qkv"),
    "double_blocks.{}.txt_attn.qkv": tuple(f"{_DOUBLE}attn.add_{part}_proj" for part in "qkv"),
    "double_blocks.{}.img_attn.proj": _DOUBLE + "attn.to_out.0", "double_blocks.{}.txt_attn.proj": _DOUBLE + "attn.to_add_out",
    "double_blocks.{}.img_mlp.0": _DOUBLE + "ff.linear_in", "double_blocks.{}.img_mlp.2": _DOUBLE + "ff.linear_out",
    "double_blocks.{}.txt_mlp.0": _DOUBLE + "ff_context.linear_in",
    "double_blocks.{}.txt_mlp.2": _DOUBLE + "ff_context.linear_out",
    "single_blocks.{}.linear1": "single_transformer_blocks.{}.attn.to_qkv_mlp_proj",
    "single_blocks.{}.linear2": "single_transformer_blocks.{}.attn.to_out",
    "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    **{f"{name}.lin": f"{name}.linear" for name in (
        "single_stream_modulation", "double_stream_modulation_img", "double_stream_modulation_txt")},
}  # fmt: skip
"""Black Forest Labs' names, which ai-toolkit and kohya write (`final_layer.adaLN_modulation` has its halves swapped)."""


class Flux2KleinSettings(DiffusersSettings):
    """Options of ``base: {use: flux2-klein}``."""

    model: ModelName = "black-forest-labs/FLUX.2-klein-base-4B"
    prompt_tokens: int = Field(default=512, ge=1)
    """Length to which every prompt is padded or cut (stock: 512)."""
    targets: tuple[str, ...] = TARGETS


def folder(settings: DiffusersSettings) -> DiffusersFolder:
    """Return the model's folder, as the settings name it."""
    parts = ("transformer", "vae", "text_encoder", "tokenizer")
    return DiffusersFolder(settings.model, settings.revision, "Flux2Transformer2DModel", parts, str(__package__))


def stock_shift(tokens: int, steps: int) -> float:
    """Return ``exp(mu)`` of the stock pipeline's schedule: 9.66 at 8 steps and 8.02 at 40 for 1024 x 1024."""
    many = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return exp(many)
    few = 8.73809524e-05 * tokens + 1.89833333
    slope = (many - few) / 190.0
    return exp(slope * steps + many - 200.0 * slope)


def describe(settings: Flux2KleinSettings) -> Needs:
    """Describe the base from its config and the headers of its weights."""
    blocks = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
    return Needs(
        base=describe_folder(
            settings, folder(settings), blocks=blocks, names=NAMES, shift=stock_shift, prompt_sees_pictures=False,
            prompt_tokens=settings.prompt_tokens,
        )
    )  # fmt: skip


def build(settings: Flux2KleinSettings, context: BuildContext) -> BaseModel:
    """Build the base; weights are read when they are first used."""
    from cldistill_plugins.flux2_klein.base import Flux2Klein

    description = describe(settings).base
    assert description is not None
    return Flux2Klein(settings, description, folder(settings), context.device, context.weights)


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """Offer FLUX.2-klein-base-4B and 9B, and anything in the same diffusers layout."""
    summary = "FLUX.2-klein-base-4B/9B or a folder of the same classes, through diffusers' Flux2KleinPipeline"
    return [base_model("flux2-klein", summary, Flux2KleinSettings, describe, build)]
