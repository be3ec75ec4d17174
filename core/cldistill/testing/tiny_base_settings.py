"""Settings and torch-free description of ``tiny-base``, the kit's own base model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cldistill.component import Needs, Settings
from cldistill.records import BaseDescription

PATCH = 4
"""Side in pixels of the square that becomes one latent token."""
CHANNELS = 3 * PATCH * PATCH
TIME_FEATURES = 8
PARTS = ("to_q", "to_k", "to_v", "to_out", "up", "down")
"""The linear modules of one block."""


class TinyBaseSettings(Settings):
    """Options of ``tiny-base``."""

    resolution: int = Field(
        default=16, ge=8, le=256, multiple_of=PATCH, description="side of the square whose area is kept"
    )
    width: int = Field(default=32, ge=8, multiple_of=8)
    layers: int = Field(default=2, ge=1)
    seed: int = Field(default=0, description="seed of the random weights")
    layout: Literal["tokens", "image"] = Field(
        default="tokens", description="latents as [L, C], or as [C, rows, columns]: no loss may assume either"
    )
    guidance_scale: float = Field(default=1.0, gt=0)
    target_guidance_scale: float = Field(default=1.0, gt=0)


def modules(settings: TinyBaseSettings) -> dict[str, tuple[int, int]]:
    """Return every linear module, name -> (out_features, in_features)."""
    width = settings.width
    found = {
        "x_in": (width, CHANNELS), "source_in": (width, CHANNELS), "prompt_in": (width, width),
        "time_in": (width, TIME_FEATURES), "x_out": (CHANNELS, width),
    }  # fmt: skip
    shapes = {"up": (2 * width, width), "down": (width, 2 * width)}
    for block in range(settings.layers):
        found |= {f"blocks.{block}.{part}": shapes.get(part, (width, width)) for part in PARTS}
    return found


def describe_tiny_base(settings: TinyBaseSettings) -> Needs:
    """Describe the base from its settings alone."""
    shapes = modules(settings)
    description = BaseDescription(
        parameters=sum((inputs + 1) * outputs for outputs, inputs in shapes.values()),
        modules=shapes,
        targets=tuple(name for name in shapes if name.startswith("blocks.")),
        latent_tokens=(settings.resolution // PATCH) ** 2,
        channels=CHANNELS,
        hidden=settings.width,
        layers=settings.layers,
        bytes_per_parameter=4.0,
        guidance_scale=settings.guidance_scale,
        blocks={f"blocks.{block}": settings.width for block in range(settings.layers)},
    )
    return Needs(base=description)
