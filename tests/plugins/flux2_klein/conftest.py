"""One tiny FLUX.2-klein pipeline of the real classes for all tests of the plugin, random but seeded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from transformers import Qwen3Config, Qwen3ForCausalLM

from cldistill.testing.tiny import tiny_tokenizer
from cldistill_plugins.flux2_klein.base import Flux2Klein
from cldistill_plugins.flux2_klein.plugin import Flux2KleinSettings, describe

torch.set_num_threads(1)
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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("klein") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tiny_klein().save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def options(folder: Path) -> dict[str, object]:
    return {"model": str(folder), "resolution": 96, "dtype": "float32", "prompt_tokens": 48}


@pytest.fixture
def base(options: dict[str, object]) -> Flux2Klein:
    settings = Flux2KleinSettings.model_validate(options)
    return Flux2Klein(settings, describe(settings))
