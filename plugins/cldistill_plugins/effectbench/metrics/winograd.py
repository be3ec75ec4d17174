"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): a quarter of the multiplications (arXiv 1509.09308).

PyTorch's CPU convolutions are direct, and most of what a distance over VGG16 costs is 3x3 convolutions.  Every 4x4 tile
of the output comes from a 6x6 tile of the input: transform it, multiply the 36 places each as one matrix product over
channels, transform back.  Equal to the direct sum but for rounding (about 1e-5 of the largest output in float32).

Pictures are (B, H, W, C) here: all transforms then run over contiguous channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 4
_KERNEL_TRANSFORM = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_CHUNK = 2**20
"""Numbers of input handled at once: small enough that the transforms stay in a CPU's last-level cache."""


def transform_kernel(kernel: Tensor) -> Tensor:
    """Transform kernels (O, I, 3, 3) once for :func:`conv3x3`: (36, I, O)."""
    matrix = torch.tensor(_KERNEL_TRANSFORM, dtype=torch.float64)
    # Columns before rows: the order in which the input's tiles are transformed.
    transformed = torch.einsum("xc,yr,oirc->xyio", matrix, matrix, kernel.double())
    return transformed.reshape(36, kernel.shape[1], kernel.shape[0]).to(kernel.dtype).contiguous()


@torch.inference_mode()
def conv3x3(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """Convolve (B, H, W, I) with stride 1 and zero padding 1, add the bias (O,): (B, H, W, O)."""
    batch, height, width, channels = x.shape
    count = max(1, _CHUNK // (height * width * channels))
    return torch.cat([_conv(part, transformed, bias) for part in x.split(count)]) if batch else x  # type: ignore[no-untyped-call]


def _conv(x: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    outputs = transformed.shape[2]
    down, across = -(-height // _TILE), -(-width // _TILE)
    padded = F.pad(x, (0, 0, 1, 1 + across * _TILE - width, 1, 1 + down * _TILE - height))
    rows = x.new_empty((6, batch, down, padded.shape[2], channels))
    _transform_input([padded[:, i : i + _TILE * (down - 1) + 1 : _TILE] for i in range(6)], rows)
    tiles = x.new_empty((6, 6, batch, down, across, channels))
    _transform_input([rows[:, :, :, i : i + _TILE * (across - 1) + 1 : _TILE] for i in range(6)], tiles)
    products = torch.bmm(tiles.view(36, -1, channels), transformed).view(6, 6, batch, down, across, outputs)
    columns = x.new_empty((_TILE, 6, batch, down, across, outputs))
    _transform_output(products, columns)
    y = x.new_empty((batch, down, _TILE, across, _TILE, outputs))
    _transform_output(columns.unbind(1), y.permute(2, 4, 0, 1, 3, 5))
    result = y.view(batch, down * _TILE, across * _TILE, outputs)[:, :height, :width]
    return result.add_(bias)


def _transform_input(x: Sequence[Tensor], out: Tensor) -> None:
    """Combine six neighbouring lines to six (the matrix B^T of the paper) and write them to ``out``."""
    steep_even, steep_odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    torch.add(steep_even, steep_odd, out=out[1])
    torch.sub(steep_even, steep_odd, out=out[2])
    even, odd = x[4] - x[2], x[3] - x[1]
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.add(even, x[0] - x[2], alpha=4, out=out[0])
    torch.sub(x[5] - x[3], odd, alpha=4, out=out[5])


def _transform_output(m: Sequence[Tensor] | Tensor, out: Tensor) -> None:
    """Combine six lines of products to the four of the output (A^T of the paper) and write them to ``out``."""
    even, odd = m[1] + m[2], m[1] - m[2]
    steep_even, steep_odd = m[3] + m[4], m[3] - m[4]
    torch.add(even + m[0], steep_even, out=out[0])
    torch.add(odd, steep_odd, alpha=2, out=out[1])
    torch.add(even, steep_even, alpha=4, out=out[2])
    torch.add(odd + m[5], steep_odd, alpha=8, out=out[3])
