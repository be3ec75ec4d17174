"""The options that a manifest may give the base ``qwen-image-edit`` (torch-free)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from cldistill.component import Settings, resolve_model

DEFAULT_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1", "txt_mod.1",
)  # fmt: skip
"""The 14 linear layers of a block that the paper adapts (its supplement; 60 blocks give 840 modules)."""

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

Dtype = Literal["float32", "bfloat16", "float16"]
GuidanceMode = Literal["standard", "rescaled"]


def keep_package(value: object, info: ValidationInfo) -> object:
    """Leave ``package:`` references as they are written, so that an exported header holds no path of one machine."""
    return value if isinstance(value, str) and value.startswith("package:") else resolve_model(value, info)


class QwenImageEditSettings(Settings):
    """Options of ``base: {use: qwen-image-edit}``."""

    model: Annotated[str, BeforeValidator(keep_package)] = "Qwen/Qwen-Image-Edit-2509"
    """Hub id, folder in the diffusers layout, or ``package:<package>/<path>``."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    resolution: int = Field(default=1024, ge=32)
    """References and outputs have this value squared as their area in pixels (stock: 1024)."""
    vl_resolution: int = Field(default=384, ge=32)
    """The VL encoder sees references of this value squared as their area (stock: 384)."""
    dtype: Dtype = "bfloat16"
    """Precision of the frozen weights; below float32 the network runs under autocast."""
    guidance_scale: float = Field(default=5.0, ge=1.0)
    """Guidance of the teacher inside the DMD losses (``w`` of ``u + w (c - u)``; the released code's 4 is this 5)."""
    guidance_mode: GuidanceMode = "standard"
    target_guidance_scale: float = Field(default=4.0, ge=1.0)
    """Guidance with which a teacher is sampled for targets and grids (the stock pipeline's ``true_cfg_scale``)."""
    target_guidance_mode: GuidanceMode = "rescaled"
    zero_cond_t: bool | None = None
    """Reference tokens at timestep 0 (Qwen-Image-Edit-2511); by default as the model's config says."""
    round_timesteps: bool = True
    """Round ``t`` to ``dtype`` before dividing by 1000, as the stock pipeline does (no effect in float32)."""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    """Modules that a slot adapts: full names, or endings such as ``to_q``."""

    @field_validator("targets")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one module; leave `targets` out for the paper's 14")
        return value
