"""``tiny-base``: a whole base model without a file, in pure torch, that trains in milliseconds.

Its VAE is exact: a picture's latent is its own pixels in squares of 4 x 4.  Its text encoder looks bytes up in a random
table.  Its backbone is random, so its pictures mean nothing, but they depend on source, prompt, sigma and adapter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling, fromarray
from torch import Tensor, nn

from cldistill.collection.card import Usage, UsageRequest
from cldistill.errors import DataError
from cldistill.protocols import GuidanceMode
from cldistill.records import Tensors
from cldistill.schedule import expand
from cldistill.storage.tensors import content_key
from cldistill.testing.tiny_base_settings import PATCH, TinyBaseSettings, describe_tiny_base
from cldistill.testing.tiny_network import TinyNetwork


class TinyBase:
    """Implements `cldistill.protocols.BaseModel`; latents are ``[L, 48]``, or ``[48, rows, columns]`` by its settings."""

    name: str = "tiny-base"
    guidance_mode: GuidanceMode = "standard"
    target_guidance_mode: GuidanceMode = "rescaled"
    prompt_sees_pictures: bool = True

    def __init__(self, settings: TinyBaseSettings | None = None) -> None:
        self.settings = settings or TinyBaseSettings()
        description = describe_tiny_base(self.settings).base
        assert description is not None
        self.adapter_targets: tuple[str, ...] = description.targets
        self.blocks: Mapping[str, int] = description.blocks
        self.guidance_scale: float = self.settings.guidance_scale
        self.target_guidance_scale: float = self.settings.target_guidance_scale
        self.resolution: int = self.settings.resolution
        geometry = self.settings.model_dump_json(include={"resolution", "width", "seed", "layout"})
        self.fingerprint: str = content_key(self.name, 2, geometry)
        self.network = TinyNetwork(self.settings)
        self.backbone: nn.Module = self.network
        self._table: Tensor | None = None
        self._device = "cpu"

    def to(self, device: str) -> None:
        """Move the network; encodings are made on the CPU."""
        self._device = device
        self.backbone.to(device)

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        """Return ``latents`` ``[S, C]`` and ``grids`` ``[n, 2]`` (rows, columns) of all references."""
        grids = [self._grid(picture) for picture in pictures]
        latents = [self._tokens(picture, *grid) for picture, grid in zip(pictures, grids, strict=True)]
        return {"latents": torch.cat(latents), "grids": torch.tensor(grids)}

    def encode_target(self, picture: Image, pictures: Sequence[Image]) -> Tensor:
        """Return the latent of an after-picture in the geometry of the first reference."""
        rows, columns = self._grid(pictures[0])
        tokens: Tensor = self._tokens(picture, rows, columns)
        return tokens if self.settings.layout == "tokens" else tokens.T.reshape(-1, rows, columns)

    def encode_prompt(self, prompt: str, pictures: Sequence[Image]) -> Tensors:
        """Return ``embeds`` ``[T, W]``: a token for each byte, and one for the mean colour of the references."""
        table = self._text_encoder()
        seen = torch.stack([self._tokens(picture, 2, 2).mean() for picture in pictures]).mean()
        places = torch.arange(len(prompt.encode()) + 1).unsqueeze(1) * 0.1
        embeds = torch.cat([table[list(prompt.encode())], seen * table[256:]]) + places.sin()
        return {"embeds": embeds}

    def latent_shape(self, source: Tensors) -> tuple[int, ...]:
        """Return ``(L, C)`` or ``(C, rows, columns)``."""
        rows, columns = (int(side) for side in source["grids"][0].tolist())
        channels = source["latents"].shape[-1]
        return (rows * columns, channels) if self.settings.layout == "tokens" else (channels, rows, columns)

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        """Return rows and columns of every reference; the first one's are the output's."""
        return tuple(int(side) for side in source["grids"].flatten().tolist())

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        """Stack sources of one batch key, or prompts of any length (padded; ``mask`` ``[B, T]`` says where they end)."""
        if "latents" in rows[0]:
            if len({self.batch_key(row) for row in rows}) > 1:
                raise DataError("tiny-base: sources of different sizes cannot share a batch")
            return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        embeds = [row["embeds"] for row in rows]
        mask = [torch.ones(len(value), dtype=torch.bool) for value in embeds]
        pad = nn.utils.rnn.pad_sequence
        return {"embeds": pad(embeds, batch_first=True), "mask": pad(mask, batch_first=True)}

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        """Return the velocity in the shape of ``x``, fp32."""
        velocity = self._run(x, sigma, source, prompt, None)
        return velocity.transpose(1, 2).reshape(x.shape) if self.settings.layout == "image" else velocity

    def features(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, at: str) -> Tensor:
        """Return ``[B, L, W]`` after the block ``at``."""
        return self._run(x, sigma, source, prompt, list(self.blocks).index(at) + 1)

    def _run(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors, blocks: int | None) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) if self.settings.layout == "image" else x
        output: Tensor = self.backbone(
            tokens.float(), sigma.float(), source["latents"].to(x.device), prompt["embeds"].to(x.device),
            prompt["mask"].to(x.device), blocks,
        )  # fmt: skip
        return output.float()

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        """Return ``u + scale * (c - u)``; ``rescaled`` gives each sample the norm of its conditional."""
        combined = unconditional + scale * (conditional - unconditional)
        if mode == "standard":
            return combined
        norms = [value.flatten(1).norm(dim=1) for value in (conditional, combined)]
        return combined * expand(norms[0] / norms[1].clamp_min(1e-9), combined)

    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        """Return the pictures of clean latents: exact but for the rounding to 8 bits."""
        rows, columns = (int(side) for side in source["grids"][0][0].tolist())
        tokens = x0.flatten(2).transpose(1, 2) if self.settings.layout == "image" else x0
        squares = tokens.detach().float().cpu().reshape(-1, rows, columns, PATCH, PATCH, 3)
        pixels = squares.transpose(2, 3).reshape(-1, rows * PATCH, columns * PATCH, 3)
        levels = ((pixels.nan_to_num(0.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [fromarray(picture) for picture in levels.numpy()]

    def tokenize(self, text: str) -> tuple[int, ...]:
        """Return the text's bytes."""
        return tuple(text.encode())

    def load_encoders(self) -> None:
        """Make the table of the text encoder."""
        self._text_encoder()

    def drop_encoders(self) -> None:
        """Forget the table; it is made again when a prompt asks for it."""
        self._table = None

    def enable_gradient_checkpointing(self, run: Callable[..., Any]) -> None:
        """Checkpoint each block through ``run``."""
        self.network.checkpoint = run

    def export_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put ``transformer.`` before each key, as diffusers does."""
        return {f"transformer.{name}": value for name, value in state.items()}

    def export_metadata(self) -> dict[str, str]:
        """Return architecture, base and its options."""
        options = self.settings.model_dump(mode="json", exclude_defaults=True)
        return {
            "modelspec.architecture": "cldistill-tiny/lora",
            "cldistill.base": self.name,
            "cldistill.base_options": json.dumps(options, sort_keys=True),
        }

    def usage(self, request: UsageRequest) -> Usage | None:
        """Return nothing: no other program knows this base."""
        return None

    def _text_encoder(self) -> Tensor:
        """One row for each byte, and a last one for what is seen: ``[257, W]``."""
        if self._table is None:
            generator = torch.Generator().manual_seed(self.settings.seed + 1)
            self._table = torch.randn(257, self.settings.width, generator=generator)
        return self._table

    def _grid(self, picture: Image) -> tuple[int, int]:
        """Rows and columns of tokens: the picture's shape at the area of ``resolution`` squared."""
        side = self.resolution / PATCH
        ratio = (picture.height / picture.width) ** 0.5
        return max(1, round(side * ratio)), max(1, round(side / ratio))

    @staticmethod
    def _tokens(picture: Image, rows: int, columns: int) -> Tensor:
        resized = picture.convert("RGB").resize((columns * PATCH, rows * PATCH), Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).float() / 127.5 - 1.0
        squares: Tensor = pixels.reshape(rows, PATCH, columns, PATCH, 3).permute(0, 2, 1, 3, 4)
        return squares.reshape(rows * columns, -1)
