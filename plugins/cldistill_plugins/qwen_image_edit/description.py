"""Modules and sizes of a Qwen-Image-Edit transformer, worked out from its config for ``check`` and ``plan`` (torch-free).

The counts follow diffusers' ``QwenImageTransformer2DModel``; a test compares them with a real instance.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

from cldistill.records import BaseDescription
from cldistill_plugins.diffusers_base.api import DTYPE_BYTES, resolve_targets, weight_bytes
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

TIME_CHANNELS = 256
STOCK_TERMINAL = 0.02
"""``shift_terminal`` of the published schedulers."""
PIXELS_PER_TOKEN = 16
"""The VAE shrinks by 8, and 2 x 2 latents make a token."""
PROMPT_TOKENS = 1024
"""The limit of the stock pipeline (its ``tokenizer_max_length``)."""

DEFAULTS: Mapping[str, Any] = {
    "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 60, "attention_head_dim": 128,
    "num_attention_heads": 24, "joint_attention_dim": 3584, "use_additional_t_cond": False,
}  # fmt: skip
Shape = tuple[int, int]


def hidden_size(config: Mapping[str, Any]) -> int:
    """Return the width of the transformer."""
    config = {**DEFAULTS, **config}
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def linear_modules(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Return every linear module: full name -> (out_features, in_features)."""
    config = {**DEFAULTS, **config}
    d = hidden_size(config)
    out = config["patch_size"] ** 2 * (config["out_channels"] or config["in_channels"])
    modules: dict[str, Shape] = {
        "time_text_embed.timestep_embedder.linear_1": (d, TIME_CHANNELS),
        "time_text_embed.timestep_embedder.linear_2": (d, d),
        "img_in": (d, config["in_channels"]),
        "txt_in": (d, config["joint_attention_dim"]),
    }
    for index in range(config["num_layers"]):
        modules |= {f"transformer_blocks.{index}.{name}": shape for name, shape in _block(d).items()}
    return modules | {"norm_out.linear": (2 * d, d), "proj_out": (out, d)}


def _block(d: int) -> dict[str, Shape]:
    attention = ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0", "to_add_out")
    block: dict[str, Shape] = {f"attn.{name}": (d, d) for name in attention}
    for stream in ("img", "txt"):
        block[f"{stream}_mod.1"] = (6 * d, d)
        block[f"{stream}_mlp.net.0.proj"] = (4 * d, d)
        block[f"{stream}_mlp.net.2"] = (d, 4 * d)
    return block


def idle_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the linear modules that reach no output: the last block's text tokens are read by nobody.

    Its text queries, and all that comes after its attention on the text side, serve those tokens alone; its text keys and
    values do reach the picture.  The paper's 840 modules and the files of the family hold them nevertheless.
    """
    last = {**DEFAULTS, **config}["num_layers"] - 1
    names = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    return tuple(f"transformer_blocks.{last}.{name}" for name in names)


def parameter_count(config: Mapping[str, Any]) -> int:
    """Return the number of parameters: all linear modules have a bias; the norms over heads and text have a weight."""
    config = {**DEFAULTS, **config}
    linear = sum(out * (inner + 1) for out, inner in linear_modules(config).values())
    norms = config["joint_attention_dim"] + 4 * config["attention_head_dim"] * config["num_layers"]
    extra = 2 * hidden_size(config) if config["use_additional_t_cond"] else 0
    return int(linear + norms + extra)


def stock_shift(tokens: int, steps: int) -> float:
    """Return the shift of the stock pipeline's schedule, ``exp(mu)``: 2.0 at 1024 x 1024, whatever the steps."""
    return exp(0.5 + (0.9 - 0.5) * (tokens - 256) / (8192 - 256))


def describe_base(settings: QwenImageEditSettings) -> BaseDescription:
    """Describe the base from its config alone."""
    model = settings.folder
    config = {**DEFAULTS, **model.config()}
    modules = linear_modules(config)
    targets = resolve_targets(modules, settings.targets)
    side = round(settings.resolution / 32) * 32 // PIXELS_PER_TOKEN
    bytes_each = DTYPE_BYTES[settings.dtype]
    parameters = parameter_count(config)
    return BaseDescription(
        parameters=parameters,
        weight_bytes=weight_bytes(settings, parameters, modules, ("transformer_blocks",)),
        modules=modules,
        targets=targets,
        latent_tokens=side * side,
        channels=config["in_channels"],
        hidden=hidden_size(config),
        layers=config["num_layers"],
        bytes_per_parameter=float(bytes_each),
        encoder_bytes=model.encoder_parameters() * bytes_each,
        guidance_scale=settings.guidance_scale,
        tokenizer=model.tokenizer_file(),
        prompt_tokens=PROMPT_TOKENS,
        idle=tuple(name for name in idle_modules(config) if name in targets),
        blocks={f"transformer_blocks.{index}": hidden_size(config) for index in range(config["num_layers"])},
        shift=stock_shift,
        terminal=STOCK_TERMINAL,
        prompt_width=config["joint_attention_dim"],
    )
