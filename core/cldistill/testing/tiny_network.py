"""The backbone of ``tiny-base``: a transformer of a few thousand random weights, in fp32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from cldistill.testing.tiny_base_settings import CHANNELS, TIME_FEATURES, TinyBaseSettings


class Block(nn.Module):
    """Attention of the latent's tokens to everything, then an MLP on them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Take ``x`` ``[B, L, W]`` and what is known, ``[B, K, W]``; ``mask`` ``[B, L + K]`` is True where something is."""
        seen = torch.cat([x, known], dim=1)
        attended = scaled_dot_product_attention(
            self.to_q(x), self.to_k(seen), self.to_v(seen), attn_mask=mask.unsqueeze(1).expand(-1, x.shape[1], -1)
        )
        x = x + self.to_out(attended)
        out: Tensor = x + self.down(silu(self.up(x)))
        return out


class TinyNetwork(nn.Module):
    """Predicts a velocity from a noised latent, sigma, source tokens and prompt tokens."""

    def __init__(self, settings: TinyBaseSettings) -> None:
        super().__init__()
        width = settings.width
        self.x_in, self.source_in = nn.Linear(CHANNELS, width), nn.Linear(CHANNELS, width)
        self.prompt_in, self.time_in = nn.Linear(width, width), nn.Linear(TIME_FEATURES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(settings.layers))
        self.x_out = nn.Linear(width, CHANNELS)
        self.checkpoint: Callable[..., Any] | None = None
        generator = torch.Generator().manual_seed(settings.seed)
        for parameter in self.parameters():
            # Wide enough that source, prompt and sigma show in the output, whatever the seed.
            bound = 1.5 / math.sqrt(parameter.shape[-1])
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(
        self, x: Tensor, sigma: Tensor, source: Tensor, prompt: Tensor, mask: Tensor, blocks: int | None = None
    ) -> Tensor:
        """Return ``[B, L, C]`` for ``x`` ``[B, L, C]``, ``sigma`` ``[B]``, source ``[B, S, C]``, prompt ``[B, T, W]``.

        ``mask`` ``[B, T]`` is True where a prompt has tokens.  ``blocks``: stop after so many, and return their ``[B, L, W]``.
        """
        width = self.x_out.in_features
        time = self.time_in(_waves(sigma.unsqueeze(1) * 10.0, TIME_FEATURES))
        hidden = self.x_in(x) + _places(x.shape[1], width, x.device) + time
        references = self.source_in(source) + _places(source.shape[1], width, x.device)
        known = torch.cat([references, self.prompt_in(prompt)], dim=1)
        ones = torch.ones(x.shape[0], x.shape[1] + source.shape[1], dtype=torch.bool, device=x.device)
        seen = torch.cat([ones, mask], dim=1)
        for block in list(self.blocks)[:blocks]:
            run = self.checkpoint
            hidden = block(hidden, known, seen) if run is None else run(block, hidden, known, seen)
        out: Tensor = hidden if blocks is not None else self.x_out(hidden)
        return out


def _waves(position: Tensor, features: int) -> Tensor:
    """Encode ``[..., 1]`` positions by sines and cosines of rising wavelength: ``[..., 1, features]``."""
    rates = torch.exp(-torch.arange(features // 2, device=position.device) * (4.0 / (features // 2)))
    angles = position.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _places(count: int, width: int, device: torch.device) -> Tensor:
    return _waves(torch.arange(count, dtype=torch.float32, device=device), width)
