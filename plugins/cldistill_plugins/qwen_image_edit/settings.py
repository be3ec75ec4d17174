"""The options that a manifest may give the base ``qwen-image-edit`` (torch-free)."""

from __future__ import annotations

from pydantic import Field

from cldistill_plugins.diffusers_base.api import DiffusersSettings, GuidanceMode, ModelName

DEFAULT_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
    "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1", "txt_mod.1",
)  # fmt: skip
"""The 14 linear layers of a block that the paper adapts (its supplement; 60 blocks give 840 modules)."""


class QwenImageEditSettings(DiffusersSettings):
    """Options of ``base: {use: qwen-image-edit}``."""

    transformer = "QwenImageTransformer2DModel"
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "processor")
    model: ModelName = "Qwen/Qwen-Image-Edit-2509"
    resolution: int = Field(default=1024, ge=32)
    """References and outputs have this value squared as their area in pixels (stock: 1024)."""
    vl_resolution: int = Field(default=384, ge=32)
    """The VL encoder sees references of this value squared as their area (stock: 384)."""
    guidance_scale: float = Field(default=5.0, ge=1.0)
    """Guidance of the teacher inside the DMD losses (``w`` of ``u + w (c - u)``; the released code's 4 is this 5)."""
    target_guidance_scale: float = Field(default=4.0, ge=1.0)
    """Guidance with which a teacher is sampled for targets and grids (the stock pipeline's ``true_cfg_scale``)."""
    target_guidance_mode: GuidanceMode = "rescaled"
    zero_cond_t: bool | None = None
    """Reference tokens at timestep 0 (Qwen-Image-Edit-2511); by default as the model's config says."""
    round_timesteps: bool = True
    """Round ``t`` to ``dtype`` before dividing by 1000, as the stock pipeline does (no effect in float32)."""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    """Modules that a slot adapts: full names, or endings such as ``to_q``."""
