"""The common part of FLUX bases: options, description and Black Forest Labs' module names, as trainers write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, base_model
from cldistill.protocols import BaseModel
from cldistill_plugins.diffusers_base.describe import describe_folder
from cldistill_plugins.diffusers_base.settings import DiffusersSettings

Table = Mapping[str, str | Sequence[str]]
BLOCKS = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
"""Lists of blocks in diffusers' FLUX transformers, in the order in which they run -> the config's entry with their number."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class FluxSettings(DiffusersSettings):
    """Options of the FLUX families: `DiffusersSettings`, and the length of prompts."""

    implementation: ClassVar[str]
    """``module:class`` of the family's `DiffusersBase`."""
    names: ClassVar[Table]
    """The modules' names in files of the family's own trainers, see `flux_names`."""
    shift: ClassVar[Callable[[int, int], float]]
    """(tokens, steps) -> the shift of the stock pipeline's schedule, ``exp(mu)``."""
    prompt_tokens: int = Field(default=512, ge=1)
    """Length to which every prompt is padded or cut (stock: 512)."""


def flux_base(name: str, summary: str, settings: type[FluxSettings]) -> Component[Any, BaseModel]:
    """Return a FLUX family as a component, from its settings."""
    return base_model(name, summary, settings, describe_flux, build_flux)


def describe_flux(settings: FluxSettings) -> Needs:
    """Describe a FLUX base from its config and the headers of its weights; its prompts see no pictures."""
    length = settings.prompt_tokens
    shift = type(settings).shift  # of the class, where it is a plain function
    own = {"shift": shift, "prompt_sees_pictures": False, "prompt_tokens": length, "encoded_tokens": length}
    return Needs(base=describe_folder(settings, blocks=BLOCKS, names=settings.names, **own))


def build_flux(settings: FluxSettings, context: BuildContext) -> BaseModel:
    """Build a FLUX base; its class, and torch, are imported now, and weights read when they are first used."""
    module, _, name = settings.implementation.partition(":")
    kind = getattr(import_module(module), name)
    base: BaseModel = kind(settings, describe_flux(settings), context.device, context.weights)
    return base


def flux_names(layers: tuple[str, str], time: str, others: Table) -> dict[str, str | Sequence[str]]:
    """Return BFL's name -> diffusers', ``{}`` for a block's number; of rows that lie together in BFL's, all names.

    The final layer's modulation is left out: its halves are swapped in diffusers.

    Args:
        layers: Names of a feed-forward's two linear layers.
        time: The module that embeds the timestep.
        others: What is this transformer's alone.
    """
    block, names = "transformer_blocks.{}.", dict[str, str | Sequence[str]]()
    for stream, rows, out, ff in (
        ("img", "attn.to_{}", "attn.to_out.0", "ff"), ("txt", "attn.add_{}_proj", "attn.to_add_out", "ff_context"),
    ):  # fmt: skip
        double = f"double_blocks.{{}}.{stream}_"
        names[double + "attn.qkv"] = [block + rows.format(part) for part in "qkv"]
        names[double + "attn.proj"] = block + out
        names |= {f"{double}mlp.{2 * index}": f"{block}{ff}.{layer}" for index, layer in enumerate(layers)}
    names |= {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
    names |= {f"time_in.{side}_layer": f"{time}.linear_{index}" for index, side in ((1, "in"), (2, "out"))}
    return {**names, **others}
