"""The miniature's VAE as 2-D convolutions: the same numbers as `AutoencoderKLQwenImage` on one frame, several times faster.

A causal 3-D convolution that sees a single frame pads the past with zeros, so only its last temporal slice ever meets data.
Names of parameters are those of the stock module, so weights go back and forth (`load_stock`, `to_stock`).
Shapes: B pictures, C channels, H×W pixels, h×w = H/8×W/8 latents.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONFIG: dict[str, Any] = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}
"""Arguments of the stock class (its own spelling) for the 2.6 M-parameter miniature, 128×128 → 16×16×16."""


class Norm(nn.Module):
    """RMS over channels with a gain, as the stock norm does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same."""
        scale = x.square().sum(1, keepdim=True).clamp(min=1e-24).rsqrt() * x.shape[1] ** 0.5
        result: Tensor = x * scale * self.gamma
        return result


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Residual(nn.Module):
    """Norm, SiLU, convolution, twice, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = Norm(inputs), _conv(inputs, outputs)
        self.norm2, self.conv2 = Norm(outputs), _conv(outputs, outputs)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Norm(channels)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → the same."""
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        return x + self.proj(attended.reshape(x.shape))  # type: ignore[no-any-return]


class Middle(nn.Module):
    """Residual, attention, residual at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList([Residual(channels, channels), Residual(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → the same."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))  # type: ignore[no-any-return]


class Down(nn.Module):
    """Halve the resolution; pads right and below only, as the stock module does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H/2, W/2)."""
        return self.resample(x)  # type: ignore[no-any-return]


class Up(nn.Module):
    """Double the resolution and halve the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), _conv(channels, channels // 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C/2, 2H, 2W)."""
        return self.resample(x)  # type: ignore[no-any-return]


class UpBlock(nn.Module):
    """Residual blocks of one resolution and, but for the last one, the step to the next."""

    def __init__(self, inputs: int, outputs: int, blocks: int, up: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Residual(inputs if i == 0 else outputs, outputs) for i in range(blocks)])
        self.upsamplers = nn.ModuleList([Up(outputs)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W), or half the channels at twice the size."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class PictureEncoder(nn.Module):
    """Pictures to the mean and log-variance of their latents."""

    def __init__(self, dims: list[int], z_dim: int, blocks: int) -> None:
        super().__init__()
        self.conv_in = _conv(3, dims[0])
        layers: list[nn.Module] = []
        for level, (inputs, outputs) in enumerate(zip([dims[0], *dims[:-1]], dims, strict=True)):
            layers += [Residual(inputs if i == 0 else outputs, outputs) for i in range(blocks)]
            if level < len(dims) - 1:
                layers.append(Down(outputs))
        self.down_blocks = nn.ModuleList(layers)
        self.mid_block = Middle(dims[-1])
        self.norm_out = Norm(dims[-1])
        self.conv_out = _conv(dims[-1], 2 * z_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 2·z, h, w)."""
        x = self.conv_in(x)
        for layer in self.down_blocks:
            x = layer(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, dims: list[int], z_dim: int, blocks: int) -> None:
        super().__init__()
        dims = dims[::-1]
        self.conv_in = _conv(z_dim, dims[0])
        self.mid_block = Middle(dims[0])
        inputs = [dims[0], *(channels // 2 for channels in dims[:-1])]
        self.up_blocks = nn.ModuleList(
            UpBlock(before, after, blocks + 1, up=level < len(dims) - 1)
            for level, (before, after) in enumerate(zip(inputs, dims, strict=True))
        )
        self.norm_out = Norm(dims[-1])
        self.conv_out = _conv(dims[-1], 3)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z, h, w) → (B, 3, H, W), about [-1, 1]."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]


class ImageVAE(nn.Module):
    """PictureEncoder and decoder for single pictures, with the parameter names of `AutoencoderKLQwenImage`."""

    def __init__(
        self, base_dim: int = 16, z_dim: int = 16, dim_mult: tuple[int, ...] = (1, 2, 4, 4), blocks: int = 1
    ) -> None:
        super().__init__()
        dims = [base_dim * multiple for multiple in dim_mult]
        self.z_dim = z_dim
        self.encoder = PictureEncoder(dims, z_dim, blocks)
        self.quant_conv = nn.Conv2d(2 * z_dim, 2 * z_dim, 1)
        self.post_quant_conv = nn.Conv2d(z_dim, z_dim, 1)
        self.decoder = Decoder(dims, z_dim, blocks)

    def encode(self, pictures: Tensor) -> Tensor:
        """Mean of the latents, not normalised: (B, 3, H, W) in [-1, 1] → (B, z, h, w)."""
        return self.quant_conv(self.encoder(pictures))[:, : self.z_dim]  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """(B, z, h, w) → (B, 3, H, W); not clamped."""
        return self.decoder(self.post_quant_conv(latents))  # type: ignore[no-any-return]


def load_stock(vae: ImageVAE, stock: dict[str, Tensor]) -> None:
    """Take the weights of a stock VAE's state dict: the last temporal slice of every causal convolution."""
    own = vae.state_dict()
    vae.load_state_dict({name: _slice(stock[name], own[name]) for name in own})


def to_stock(vae: ImageVAE, stock: dict[str, Tensor]) -> dict[str, Tensor]:
    """A stock state dict with this VAE's weights; every slice and module that one frame never uses is zero."""
    own = vae.state_dict()
    result = {}
    for name, value in stock.items():
        result[name] = torch.zeros_like(value)
        if name in own:
            _slice(result[name], own[name]).copy_(own[name])
    return result


def _slice(stock: Tensor, own: Tensor) -> Tensor:
    """The view of a stock parameter that has the shape of ours: (O, I, T, h, w) → its last T; (C, 1, 1, 1) → (C, 1, 1)."""
    if stock.ndim == own.ndim + 1:
        return stock[:, :, -1] if stock.ndim == 5 else stock[..., 0]
    return stock
