"""Settings of ``pixel-kontext`` and what follows from them: the transformer's modules, without torch."""

from __future__ import annotations

from pydantic import Field

from cldistill.component import Needs, Settings
from cldistill.records import BaseDescription

PATCH = 4
CHANNELS = 3 * PATCH * PATCH
HEAD = 16
WORDS = 48
"""Bytes of a prompt that are read; FLUX too pads every prompt to one length."""
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class PixelKontextSettings(Settings):
    """Options of ``pixel-kontext``."""

    resolution: int = Field(default=16, ge=8, le=512, description="side of the square whose area is kept")
    heads: int = Field(default=2, ge=1, description="attention heads of 16 channels")
    layers: int = Field(default=1, ge=1, description="double-stream blocks, and as many single-stream ones")
    seed: int = Field(default=0, description="of the random weights")
    guidance_scale: float = Field(default=1.0, ge=0)

    @property
    def width(self) -> int:
        """Channels of a token inside the transformer."""
        return self.heads * HEAD


def modules(settings: PixelKontextSettings) -> dict[str, tuple[int, int]]:
    """Return every linear module of the transformer, name -> (out_features, in_features)."""
    w = settings.width
    found = {
        "time_text_embed.timestep_embedder.linear_1": (w, 256), "time_text_embed.timestep_embedder.linear_2": (w, w),
        "time_text_embed.text_embedder.linear_1": (w, w), "time_text_embed.text_embedder.linear_2": (w, w),
        "context_embedder": (w, w), "x_embedder": (w, CHANNELS), "norm_out.linear": (2 * w, w), "proj_out": (CHANNELS, w),
    }  # fmt: skip
    for layer in range(settings.layers):
        double, single = f"transformer_blocks.{layer}", f"single_transformer_blocks.{layer}"
        found |= {f"{double}.attn.{name}": (w, w) for name in TARGETS}
        for suffix in ("", "_context"):
            found |= {
                f"{double}.norm1{suffix}.linear": (6 * w, w),
                f"{double}.ff{suffix}.net.0.proj": (4 * w, w),
                f"{double}.ff{suffix}.net.2": (w, 4 * w),
            }
        found |= {f"{single}.attn.{name}": (w, w) for name in ("to_q", "to_k", "to_v")}
        found |= {
            f"{single}.norm.linear": (3 * w, w),
            f"{single}.proj_mlp": (4 * w, w),
            f"{single}.proj_out": (w, 5 * w),
        }
    return found


def describe_base(settings: PixelKontextSettings) -> Needs:
    """Describe the base from its settings alone."""
    shapes = modules(settings)
    norms = 6 * HEAD * settings.layers  # queries and keys: two streams of a double block, one of a single block
    description = BaseDescription(
        parameters=sum((inputs + 1) * outputs for outputs, inputs in shapes.values()) + norms,
        modules=shapes,
        targets=tuple(name for name in shapes if ".attn." in name),
        latent_tokens=round(settings.resolution / PATCH) ** 2,
        channels=CHANNELS,
        hidden=settings.width,
        layers=2 * settings.layers,
        bytes_per_parameter=4.0,
        guidance_scale=settings.guidance_scale,
        prompt_sees_pictures=False,
        encoded_tokens=WORDS,
        prompt_width=settings.width,
        blocks={f"transformer_blocks.{layer}": settings.width for layer in range(settings.layers)},
    )
    return Needs(base=description)
