"""A complete, untrained Qwen-Image-Edit pipeline of the smallest possible parts, built from the real classes.

For tests only: everything that the 20 B model's folder holds is there (transformer, VAE, text encoder with its vision
tower, tokenizer, processor, scheduler), in the diffusers layout, below a megabyte, random but seeded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as stock
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

TINY_RESOLUTION = 64
"""Side of the square whose area the tiny base gives to its VAE: 4 x 4 latent tokens."""
TINY_VL_RESOLUTION = 56
"""The same for the VL encoder: 4 image tokens."""

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n"
    "<|im_start|>user\nPicture 1: <|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The stock pipeline's prompt template: its words become whole tokens, so its prefix is the 64 that stock drops."""


def tiny_tokenizer(texts: tuple[str, ...] = ("turn the picture into manga", "make it darker")) -> Qwen2Tokenizer:
    """Train a byte-level BPE on the stock template and ``texts``, with Qwen's own pre-tokenizer and special tokens."""
    trainee = Tokenizer(models.BPE())
    trainee.normalizer = normalizers.NFC()
    trainee.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainee.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    trainee.train_from_iterator([TEMPLATE.format(text) for text in ("", *texts)], trainer)
    model = json.loads(trainee.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return Qwen2Tokenizer(vocab=model["vocab"], merges=merges, extra_special_tokens=list(SPECIAL_TOKENS[1:]))


def tiny_text_encoder(tokenizer: Qwen2Tokenizer, width: int) -> Qwen2_5_VLForConditionalGeneration:
    """Build a one-layer Qwen2.5-VL whose special-token ids lie inside the small vocabulary (the defaults do not)."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"],
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": width, "intermediate_size": 2 * width, "num_heads": 2, "out_hidden_size": width,
        "fullatt_block_indexes": [0], "patch_size": 14, "spatial_merge_size": 2, "window_size": 112,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    encoder = Qwen2_5_VLForConditionalGeneration(config).eval()
    encoder.generation_config.bos_token_id = ids["<|endoftext|>"]
    encoder.generation_config.eos_token_id = ids["<|im_end|>"]
    encoder.generation_config.pad_token_id = ids["<|endoftext|>"]
    return encoder


def tiny_transformer(width: int = 32, **changes: Any) -> QwenImageTransformer2DModel:
    """Build a two-layer transformer; ``changes`` go to its config."""
    config: dict[str, Any] = {
        "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": width, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    return QwenImageTransformer2DModel(**(config | changes)).eval()


def tiny_vae() -> AutoencoderKLQwenImage:
    """Build the f8, 16-channel VAE at its smallest; its random decoder is amplified, so that pictures have contrast."""
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.02] * 16,
        latents_std=[0.1] * 16,
    )
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(6.0)
    return vae.eval()


def tiny_parts(seed: int = 0, **transformer: Any) -> QwenImageEditPlusPipeline:
    """Assemble the tiny pipeline in memory, seeded, in fp32."""
    width = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pictures = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=384 * 384)
        return QwenImageEditPlusPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(tokenizer, width),
            tokenizer=tokenizer,
            processor=Qwen2VLProcessor(pictures, tokenizer, Qwen2VLVideoProcessor()),
            transformer=tiny_transformer(width, **transformer),
        )


def tiny_pipeline(folder: Path, seed: int = 0, **transformer: Any) -> Path:
    """Write the tiny pipeline to ``folder`` in the diffusers layout and return the folder."""
    tiny_parts(seed, **transformer).save_pretrained(folder)
    return folder


@contextmanager
def stock_areas(resolution: int = TINY_RESOLUTION, vl_resolution: int = TINY_VL_RESOLUTION) -> Iterator[None]:
    """Set the two area constants to which the stock pipeline resizes its references, and restore them."""
    before = stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE
    stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE = vl_resolution**2, resolution**2
    try:
        yield
    finally:
        stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE = before
