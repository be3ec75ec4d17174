"""Measures what ships: VAE reconstruction, and every edit at 8 stock steps against VAE(truth), on held-out pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus as stock
import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cldistill_plugins.miniature.build.base import GRID, pack
from cldistill_plugins.miniature.build.latents import Writer
from cldistill_plugins.miniature.build.vae import to_tensor
from cldistill_plugins.miniature.instructions import INSTRUCTIONS

STEPS = 8
CONDITION_AREA, PICTURE_AREA = 56 * 56, 128 * 128


@dataclass(frozen=True, slots=True)
class EditScore:
    """One edit over all measured pictures; errors are mean squares of pixels in [-1, 1], against VAE(truth).

    Attributes:
        source: error of VAE(source), of not editing at all.
        output: error of the pipeline's output.
    """

    source: float
    output: float

    @property
    def gain(self) -> float:
        """Return how many times nearer the output is than the source."""
        return self.source / self.output


@contextmanager
def miniature_sizes() -> Iterator[None]:
    """The stock pipeline's two area constants at the miniature's sizes, put back at the end."""
    before = stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE
    stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE = CONDITION_AREA, PICTURE_AREA
    try:
        yield
    finally:
        stock.CONDITION_IMAGE_SIZE, stock.VAE_IMAGE_SIZE = before


def load_pipeline(folder: Path) -> QwenImageEditPlusPipeline:
    """The pipeline in single precision, without a progress bar."""
    pipeline = QwenImageEditPlusPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_pictures(folder: Path) -> NDArray[np.uint8]:
    """The PNGs of a folder in order, uint8 (N, 128, 128, 3)."""
    return np.stack(
        [np.asarray(Image.open(path).convert("RGB"), dtype=np.uint8) for path in sorted(folder.glob("*.png"))]
    )


def edit(pipeline: QwenImageEditPlusPipeline, picture: NDArray[np.uint8], prompt: str, seed: int) -> Tensor:
    """One picture (H, W, 3) through the stock pipeline at 8 steps without guidance → (3, 128, 128) in [-1, 1]."""
    with miniature_sizes():
        output = pipeline(
            Image.fromarray(picture), prompt, height=128, width=128, num_inference_steps=STEPS, true_cfg_scale=1.0,
            generator=torch.Generator().manual_seed(seed), output_type="pt",
        ).images[0]  # fmt: skip
    result: Tensor = output * 2 - 1
    return result


@torch.no_grad()
def edit_batch(
    pipeline: QwenImageEditPlusPipeline, pictures: NDArray[np.uint8], prompts: list[str], seeds: list[int]
) -> Tensor:
    """Return what `edit` gives for each picture (B, H, W, 3), all at once: (B, 3, 128, 128) in [-1, 1]."""
    writer = Writer(pipeline.processor, pipeline.text_encoder, pipeline.prompt_template_encode)
    text, lengths = writer.embed(prompts, list(pictures))
    text = text[:, : int(lengths.max())]
    mask = torch.arange(text.shape[1]) < lengths[:, None]
    config = pipeline.vae.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
    latents = pipeline.vae.encode(to_tensor(pictures).unsqueeze(2)).latent_dist.mode()[:, :, 0]
    source = pack((latents - mean) / std)
    shape = (1, *latents.shape[1:])
    tokens = torch.cat([pack(torch.randn(shape, generator=torch.Generator().manual_seed(seed))) for seed in seeds])
    pipeline.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / STEPS, STEPS))
    for time in pipeline.scheduler.timesteps:
        velocity = pipeline.transformer(
            hidden_states=torch.cat([tokens, source], dim=1),
            timestep=time.expand(len(tokens)) / 1000,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            img_shapes=[[GRID] * 2] * len(tokens),
            return_dict=False,
        )[0]
        tokens = pipeline.scheduler.step(velocity[:, : tokens.shape[1]], time, tokens, return_dict=False)[0]
    unpacked = pipeline._unpack_latents(tokens, 128, 128, 8)[:, :, 0] * std + mean
    result: Tensor = pipeline.vae.decode(unpacked.unsqueeze(2)).sample[:, :, 0]
    return result


@torch.no_grad()
def reconstruct(pipeline: QwenImageEditPlusPipeline, pictures: NDArray[np.uint8]) -> Tensor:
    """VAE(pictures): (N, H, W, 3) → (N, 3, H, W) in [-1, 1]."""
    parts = []
    for start in range(0, len(pictures), 8):
        latents = pipeline.vae.encode(to_tensor(pictures[start : start + 8]).unsqueeze(2)).latent_dist.mode()
        parts.append(pipeline.vae.decode(latents).sample[:, :, 0])
    return torch.cat(parts)


def vae_psnr(pipeline: QwenImageEditPlusPipeline, pictures: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB of the shipped VAE, each picture on its own."""
    error = (reconstruct(pipeline, pictures) - to_tensor(pictures)).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / error)).mean())


def score_edits(pipeline: QwenImageEditPlusPipeline, pictures: NDArray[np.uint8]) -> dict[str, EditScore]:
    """Every edit on every picture, wordings in turn; `same` counts too, but its gain says nothing."""
    sources = reconstruct(pipeline, pictures)
    scores = {}
    for name, instruction in INSTRUCTIONS.items():
        truth = reconstruct(pipeline, np.stack([instruction.apply(picture) for picture in pictures]))
        prompts = [instruction.wordings[index % len(instruction.wordings)] for index in range(len(pictures))]
        outputs = torch.cat(
            [
                edit_batch(pipeline, pictures[first:last], prompts[first:last], list(range(first, last)))
                for first, last in pairwise((*range(0, len(pictures), 8), len(pictures)))
            ]
        )
        scores[name] = EditScore(float((sources - truth).square().mean()), float((outputs - truth).square().mean()))
    return scores


def report(psnr: float, scores: dict[str, EditScore]) -> dict[str, Any]:
    """The figures as they go into PROVENANCE.json."""
    gains = [score.gain for name, score in scores.items() if name != "same"]
    edits = {name: _row(score) for name, score in scores.items()}
    return {
        "vae_psnr_db": round(psnr, 2), "steps": STEPS, "mean_gain": round(float(np.mean(gains)), 2),
        "least_gain": round(min(gains), 2), "edits": edits,
    }  # fmt: skip


def _row(score: EditScore) -> dict[str, float]:
    return {
        "error_of_source": round(score.source, 5),
        "error_of_output": round(score.output, 5),
        "gain": round(score.gain, 2),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"held-out VAE PSNR {figures['vae_psnr_db']:.2f} dB",
        f"{'edit':<12}{'source':>10}{'output':>10}{'gain':>8}",
    ]
    for name, row in figures["edits"].items():
        gain = f"{row['gain']:7.1f}x" if name != "same" else ""
        lines.append(f"{name:<12}{row['error_of_source']:>10.4f}{row['error_of_output']:>10.4f}{gain}")
    lines.append(
        f"over the edits that change a picture: mean {figures['mean_gain']:.1f}x, least {figures['least_gain']:.1f}x"
    )
    return "\n".join(lines)
