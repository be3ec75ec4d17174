"""Complete, untrained FLUX pipelines of the smallest possible parts, built from the real classes, and asked as stock.

For tests only, as `cldistill.testing.tiny`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from PIL.Image import Resampling
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from cldistill.testing.stock_check import StockPicture, StockRequest
from cldistill.testing.tiny import tiny_tokenizer

WIDTH = 16
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_klein() -> Flux2KleinPipeline:
    """Build the pipeline; random layers are amplified, so that pictures, prompts and noise all show."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template, tokenizer.pad_token = TEMPLATE, "<|endoftext|>"
    text = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=28, num_attention_heads=1,
        num_key_value_heads=1, head_dim=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(block_out_channels=(4, 4, 4, 4), layers_per_block=1, latent_channels=4, norm_num_groups=2)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(6.0)
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.02, 0.2)
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * WIDTH, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.mul_(2.0)
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, tokenizer=tokenizer,
        text_encoder=Qwen3ForCausalLM(text), transformer=transformer,
    )  # fmt: skip


LETTERS = [chr(code) for code in range(33, 127)]


def tiny_kontext() -> FluxKontextPipeline:
    """Build the pipeline; its transformer is amplified, so that pictures, prompts and noise all show."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    clip = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    t5 = T5Config(vocab_size=len(pieces), d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[4] * 4,
        latent_channels=4, norm_num_groups=2, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1,
        scaling_factor=0.4,
    )  # fmt: skip
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(6.0)
        for parameter in transformer.parameters():
            parameter.mul_(2.0)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, transformer=transformer,
        text_encoder=CLIPTextModel(clip),
        tokenizer=CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77),
        text_encoder_2=T5EncoderModel(t5), tokenizer_2=T5TokenizerFast(vocab=pieces, extra_ids=0),
    )  # fmt: skip


def save_seeded(build: Any, folder: Path, seed: int = 0) -> Path:
    """Write what ``build`` (`tiny_klein`, `tiny_kontext`) makes to a folder, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build().save_pretrained(folder)
    return folder


def _loaded(pipeline: Any, folder: Path, lora: Path | None) -> Any:
    found = pipeline.from_pretrained(folder)
    found.set_progress_bar_config(disable=True)
    if lora is not None:
        found.load_lora_weights(str(lora.parent), weight_name=lora.name)
    return found


def stock_klein(folder: Path, request: StockRequest, tokens: int) -> StockPicture:
    """Ask the stock pipeline of a klein folder; ``tokens``: length of prompts."""
    pipeline = _loaded(Flux2KleinPipeline, folder, request.lora)
    width, height = request.size
    shown = pipeline(
        image=list(request.pictures), prompt=request.prompt, num_inference_steps=request.steps, guidance_scale=1.0,
        latents=request.noise.transpose(1, 2).reshape(1, -1, height // 16, width // 16), output_type="np",
        max_sequence_length=tokens,
    ).images[0]  # fmt: skip
    return StockPicture(shown, pipeline.scheduler.sigmas[:-1])


def stock_kontext(folder: Path, request: StockRequest, tokens: int) -> StockPicture:
    """Ask the stock pipeline of a Kontext folder, at an embedded guidance of 2.5; it takes one reference."""
    pipeline = _loaded(FluxKontextPipeline, folder, request.lora)
    width, height = request.size
    shown = pipeline(
        image=request.pictures[0].resize(request.size, Resampling.LANCZOS), prompt=request.prompt,
        num_inference_steps=request.steps, guidance_scale=2.5, latents=request.noise, width=width, height=height,
        max_area=width * height, _auto_resize=False, output_type="np", max_sequence_length=tokens,
    ).images[0]  # fmt: skip
    return StockPicture(shown, pipeline.scheduler.sigmas[:-1])
