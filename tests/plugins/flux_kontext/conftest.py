"""One tiny FLUX.1-Kontext pipeline of the real classes for all tests of the plugin, random but seeded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from cldistill_plugins.flux_kontext.base import FluxKontext
from cldistill_plugins.flux_kontext.plugin import FluxKontextSettings, describe

torch.set_num_threads(1)
WIDTH = 16
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
        text_encoder=CLIPTextModel(clip), tokenizer=CLIPTokenizer(vocab={w: i for i, w in enumerate(words)}, merges=[], model_max_length=77),
        text_encoder_2=T5EncoderModel(t5), tokenizer_2=T5TokenizerFast(vocab=pieces, extra_ids=0),
    )  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kontext") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_kontext().save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def options(folder: Path) -> dict[str, object]:
    return {"model": str(folder), "resolution": 96, "dtype": "float32", "prompt_tokens": 32}


@pytest.fixture
def base(options: dict[str, object]) -> FluxKontext:
    settings = FluxKontextSettings.model_validate(options)
    return FluxKontext(settings, describe(settings))
