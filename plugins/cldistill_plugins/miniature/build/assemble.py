"""Puts the trained parts together as a pipeline folder in the diffusers layout, in half precision."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)

from cldistill_plugins.miniature.build import image_vae
from cldistill_plugins.miniature.build.image_vae import ImageVAE
from cldistill_plugins.miniature.build.text import build_processor, build_text_encoder, build_tokenizer

SHIFT = 3.0
TRANSFORMER: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": 64,
    "axes_dims_rope": (8, 12, 12),
}
"""2.5 M parameters."""


def build_transformer(seed: int = 0) -> QwenImageTransformer2DModel:
    """The untrained transformer."""
    torch.manual_seed(seed)
    return QwenImageTransformer2DModel(**TRANSFORMER)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Plain Euler steps with a fixed shift of 3, the grid that the student is distilled for."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False, shift_terminal=None)


def stock_vae(vae: ImageVAE, mean: list[float], std: list[float]) -> AutoencoderKLQwenImage:
    """The stock VAE with these weights and these statistics of its latents; what one frame never uses is zero."""
    stock = AutoencoderKLQwenImage(**image_vae.CONFIG, latents_mean=mean, latents_std=std)
    stock.load_state_dict(image_vae.to_stock(vae, stock.state_dict()))
    return stock


def write_pipeline(
    folder: Path, vae: AutoencoderKLQwenImage, transformer: QwenImageTransformer2DModel, provenance: dict[str, Any]
) -> None:
    """Write the whole pipeline and PROVENANCE.json into `folder`; loads with `QwenImageEditPlusPipeline.from_pretrained`."""
    tokenizer = build_tokenizer()
    pipeline = QwenImageEditPlusPipeline(
        scheduler=build_scheduler(),
        vae=vae.half(),
        text_encoder=build_text_encoder(tokenizer).half(),
        tokenizer=tokenizer,
        processor=build_processor(tokenizer),
        transformer=transformer.half(),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "PROVENANCE.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
