"""``pixel-kontext``: implements `cldistill.protocols.BaseModel` over diffusers' ``FluxTransformer2DModel``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from cldistill.collection.card import Usage, UsageRequest
from cldistill.protocols import GuidanceMode
from cldistill.records import Tensors
from cldistill.storage.tensors import content_key
from pixel_kontext.description import CHANNELS, HEAD, PATCH, WORDS, PixelKontextSettings, describe_base


class PixelKontext:
    """Latents are ``[L, 48]``: the pixels of squares of 4 x 4, in [-1, 1]."""

    name: str = "pixel-kontext"
    guidance_mode: GuidanceMode = "standard"
    target_guidance_mode: GuidanceMode = "standard"
    prompt_sees_pictures: bool = False

    def __init__(self, settings: PixelKontextSettings, device: str = "cpu") -> None:
        description = describe_base(settings).base
        assert description is not None
        self.settings = settings
        self.adapter_targets: tuple[str, ...] = description.targets
        self.blocks: Mapping[str, int] = description.blocks
        self.guidance_scale: float = settings.guidance_scale
        self.target_guidance_scale: float = settings.guidance_scale
        self.resolution: int = settings.resolution
        self.fingerprint: str = content_key(self.name, settings.resolution, settings.width, settings.seed)
        self.backbone: nn.Module = _transformer(settings).to(device)
        self._words: Tensor | None = None

    def to(self, device: str) -> None:
        """Move the transformer; encodings are made on the CPU."""
        self.backbone.to(device)

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        """Return ``latents`` ``[L, C]`` of the first picture and its ``grid`` ``[2]``: rows and columns."""
        rows, columns = self._grid(pictures[0])
        return {"latents": _squares(pictures[0], rows, columns), "grid": torch.tensor([rows, columns])}

    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Return ``[L, C]`` in the geometry of the source."""
        return _squares(picture, *self._grid(pictures[0]))

    def encode_prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Return ``embeds`` ``[48, W]``: the prompt's first bytes, padded with zeros."""
        self.load_encoders()
        assert self._words is not None
        data = list(prompt.encode())[:WORDS]
        embeds = torch.zeros(WORDS, self.settings.width)
        embeds[: len(data)] = self._words[data]
        return {"embeds": embeds}

    def latent_shape(self, source: Tensors) -> tuple[int, ...]:
        """Return ``(L, C)``."""
        return tuple(source["latents"].shape)

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        """Return rows and columns: of the source, and so of the output."""
        return tuple(source["grid"].tolist())

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        """Stack: sources of a batch have one grid, and all prompts have one length."""
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        """Return the velocity ``[B, L, C]``: the reference's tokens follow the picture's, as in FLUX.1-Kontext."""
        reference, embeds = source["latents"].to(x.device), prompt["embeds"].to(x.device)
        places = _places(source["grid"][0])
        output = self.backbone(
            hidden_states=torch.cat([x.float(), reference], dim=1),
            encoder_hidden_states=embeds,
            pooled_projections=embeds.mean(dim=1),
            timestep=sigma.float(),
            img_ids=torch.cat([places, places + torch.tensor([1.0, 0.0, 0.0])]).to(x.device),
            txt_ids=torch.zeros(WORDS, 3, device=x.device),
            return_dict=False,
        )[0]
        velocity: Tensor = output[:, : x.shape[1]].float()
        return velocity

    def features(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, at: str) -> Tensor:
        """Return ``[B, L, W]``: the picture's tokens after a double-stream block, which returns (text, pictures)."""
        seen: list[tuple[Tensor, Tensor]] = []
        handle = self.backbone.get_submodule(at).register_forward_hook(lambda block, given, output: seen.append(output))
        try:
            self.predict(x, sigma, source, prompt)  # small: the blocks behind it are not worth leaving out
        finally:
            handle.remove()
        return seen[0][1][:, : x.shape[1]].float()

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        """Return ``u + scale * (c - u)``; ``rescaled`` gives each token the norm of its conditional."""
        combined = unconditional + scale * (conditional - unconditional)
        if mode == "standard":
            return combined
        ratio: Tensor = conditional.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        return combined * ratio

    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        """Put the squares together again."""
        rows, columns = source["grid"][0].tolist()
        pixels = x0.detach().float().cpu().reshape(-1, rows, columns, PATCH, PATCH, 3).transpose(2, 3)
        levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [fromarray(picture) for picture in levels.reshape(-1, rows * PATCH, columns * PATCH, 3).numpy()]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the text's bytes."""
        return tuple(text.encode())

    def load_encoders(self) -> None:
        """Make the table of the text encoder: a row for each byte."""
        if self._words is None:
            generator = torch.Generator().manual_seed(self.settings.seed)
            self._words = torch.randn(256, self.settings.width, generator=generator)

    def drop_encoders(self) -> None:
        """Forget the table."""
        self._words = None

    def enable_gradient_checkpointing(self, run: Callable[..., Any]) -> None:
        """Checkpoint each block through ``run``, which pins the active adapter for the recompute."""
        backbone: Any = self.backbone
        backbone.enable_gradient_checkpointing(lambda block, *args: run(block.__call__, *args))

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return diffusers' keys: ``transformer.<module>.lora_A.weight``."""
        return {f"transformer.{name}": tensor for name, tensor in state.items()}

    def export_metadata(self) -> dict[str, str]:
        """Return what other programs may want to know."""
        options = self.settings.model_dump_json(exclude_defaults=True)
        return {
            "modelspec.architecture": "pixel-kontext/lora",
            "cldistill.base": self.name,
            "cldistill.base_options": options,
        }

    def usage(self, request: UsageRequest) -> Usage | None:
        """Return nothing: no other program knows this base."""
        return None

    def _grid(self, picture: Image) -> tuple[int, int]:
        side, ratio = self.resolution / PATCH, (picture.height / picture.width) ** 0.5
        return max(1, round(side * ratio)), max(1, round(side / ratio))


def _transformer(settings: PixelKontextSettings) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # seeded, and nobody else's random numbers move
        torch.manual_seed(settings.seed)
        model = FluxTransformer2DModel(
            patch_size=1, in_channels=CHANNELS, num_layers=settings.layers, num_single_layers=settings.layers,
            attention_head_dim=HEAD, num_attention_heads=settings.heads, joint_attention_dim=settings.width,
            pooled_projection_dim=settings.width, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
    module: nn.Module = model.eval()
    return module


def _squares(picture: Image, rows: int, columns: int) -> Tensor:
    resized = picture.convert("RGB").resize((columns * PATCH, rows * PATCH), Resampling.BICUBIC)
    pixels = (pil_to_tensor(resized).float() / 127.5 - 1.0).reshape(3, rows, PATCH, columns, PATCH)
    squares: Tensor = pixels.permute(1, 3, 2, 4, 0).reshape(rows * columns, CHANNELS)
    return squares


def _places(grid: Tensor) -> Tensor:
    """Return ``[L, 3]``: 0 (1 for the reference), row and column of each token."""
    rows, columns = (torch.arange(int(side), dtype=torch.float32) for side in grid)
    return torch.cartesian_prod(torch.zeros(1), rows, columns)
