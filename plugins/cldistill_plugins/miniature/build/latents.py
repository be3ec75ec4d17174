"""The training data of the transformer, computed once: latents of sources and of every edit of them, and prompt embeddings.

Chunks of 100 pictures, `work/latents/000.safetensors`…; n pictures, E edits, L tokens:
`source` (n, 16, 16, 16), `target` (n, E, 16, 16, 16), both before normalisation; `text` (n, E + 2, L, 64) and `length`
(n, E + 2) for the edits, then `same`, then the empty prompt.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLProcessor

from cldistill_plugins.miniature.build.art import load_sprites
from cldistill_plugins.miniature.build.image_vae import ImageVAE
from cldistill_plugins.miniature.build.pictures import Picture, open_studio
from cldistill_plugins.miniature.build.text import build_processor, build_text_encoder, build_tokenizer, stock_template
from cldistill_plugins.miniature.build.vae import load_vae, to_tensor
from cldistill_plugins.miniature.build.workers import run_workers
from cldistill_plugins.miniature.instructions import INSTRUCTIONS

EDITS = tuple(name for name in INSTRUCTIONS if name != "same")
CHUNK = 100
FIRST_INDEX = 10_000
"""Source pictures start here: not the ones that ship, nor the ones that the VAE trains on."""
TOKENS = 40
"""Room for a prompt after the prefix; the longest wording needs fewer."""
PREFIX = 64


@dataclass(frozen=True, slots=True)
class Writer:
    """The stock text side, batched: what `QwenImageEditPlusPipeline._get_qwen_prompt_embeds` does, for many pictures."""

    processor: Qwen2VLProcessor
    encoder: Qwen2_5_VLForConditionalGeneration
    template: str

    @torch.no_grad()
    def embed(self, prompts: list[str], pictures: list[Picture]) -> tuple[Tensor, Tensor]:
        """Embeddings (B, 40, 64) for square pictures, zero behind the end, and their lengths (B,)."""
        resizer = VaeImageProcessor(vae_scale_factor=16)
        kept, lengths = self.states(prompts, [resizer.resize(Image.fromarray(picture), 64, 64) for picture in pictures])
        room = kept.new_zeros(len(prompts), TOKENS, kept.shape[-1])
        room[:, : kept.shape[1]] = kept
        return room, lengths

    @torch.no_grad()
    def states(self, prompts: list[str], images: list[Image.Image]) -> tuple[Tensor, Tensor]:
        """States (B, T, 64) of prompts and of pictures at the eye's size, zero behind the end, and their lengths (B,)."""
        slot = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
        text = [self.template.format(slot + prompt) for prompt in prompts]
        inputs = self.processor(text=text, images=images, padding=True, padding_side="right", return_tensors="pt")
        names = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
        states = self.encoder(**{name: inputs[name] for name in names}, output_hidden_states=True).hidden_states[-1]
        mask = inputs["attention_mask"][:, PREFIX:]
        return states[:, PREFIX:] * mask[..., None], mask.sum(1)


def open_writer() -> Writer:
    """The text side as it ships, in single precision."""
    tokenizer = build_tokenizer()
    # Through half precision and back, as anyone sees it who loads the pipeline.
    return Writer(build_processor(tokenizer), build_text_encoder(tokenizer).half().float(), stock_template())


def write_chunks(work: Path, count: int, workers: int) -> None:
    """Write all chunks of `count` pictures that are missing, `workers` processes side by side."""
    (work / "latents").mkdir(parents=True, exist_ok=True)
    run_workers(_write_chunks, (work, count // CHUNK, workers), workers)


def _write_chunks(rank: int, work: Path, chunks: int, workers: int) -> None:
    torch.set_num_threads(1)
    vae, writer = load_vae(work / "vae-joint.pt"), open_writer()
    studio = open_studio(load_sprites(work), "train")
    for chunk in range(rank, chunks, workers):
        path = work / "latents" / f"{chunk:03d}.safetensors"
        if path.is_file():
            continue
        pictures = [studio.picture(FIRST_INDEX + chunk * CHUNK + index) for index in range(CHUNK)]
        tensors = _chunk(vae, writer, pictures, np.random.default_rng([2, chunk]))
        aside = path.with_suffix(".part")
        save_file(tensors, aside)
        aside.replace(path)
        print(f"latents: chunk {chunk + 1} of {chunks}", flush=True)


def _chunk(vae: ImageVAE, writer: Writer, pictures: list[Picture], rng: np.random.Generator) -> dict[str, Tensor]:
    targets, texts, lengths = [], [], []
    for picture in pictures:
        edited = [INSTRUCTIONS[name].apply(picture) for name in EDITS]
        targets.append(encode(vae, np.stack(edited)))
        prompts = [str(rng.choice(INSTRUCTIONS[name].wordings)) for name in (*EDITS, "same")]
        text, length = writer.embed([*prompts, ""], [picture] * (len(prompts) + 1))
        texts.append(text.half())
        lengths.append(length)
    return {
        "source": torch.cat(
            [encode(vae, np.stack(pictures[start : start + 10])) for start in range(0, len(pictures), 10)]
        ),
        "target": torch.stack(targets),
        "text": torch.stack(texts),
        "length": torch.stack(lengths),
    }


@torch.no_grad()
def encode(vae: ImageVAE, pictures: NDArray[np.uint8]) -> Tensor:
    """Half-precision latents (B, 16, 16, 16) of pictures (B, 128, 128, 3), before normalisation."""
    return vae.encode(to_tensor(pictures)).half().contiguous()


@dataclass(frozen=True, slots=True)
class Latents:
    """All chunks in memory, latents normalised; shapes as in the module's docstring.

    Attributes:
        mean, std: of each latent channel over sources and targets, as the VAE's config stores them.
    """

    source: Tensor
    target: Tensor
    text: Tensor
    length: Tensor
    mean: Tensor
    std: Tensor


def load_latents(work: Path) -> Latents:
    """Every chunk there is, in order.

    Raises:
        ValueError: there is none yet.
    """
    paths = sorted((work / "latents").glob("*.safetensors"))
    if not paths:
        raise ValueError(f"no latents in {work / 'latents'}: run `--stage latents` first")
    chunks = [load_file(path) for path in paths]
    joined = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    mean, std = statistics(joined["source"], joined["target"])
    view = (-1, 1, 1)
    for name in ("source", "target"):
        joined[name] = ((joined[name] - mean.half().view(view)) / std.half().view(view)).half()
    return Latents(**joined, mean=mean, std=std)


def statistics(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (16,) of each channel of latents (N, 16, h, w) and (N, E, 16, h, w) together."""
    every = torch.cat([source[:, None], target], dim=1)
    values = [every[:, :, channel].float() for channel in range(every.shape[2])]
    return torch.stack([value.mean() for value in values]), torch.stack([value.std() for value in values])
