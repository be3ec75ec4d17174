"""High-frequency energy of a picture's luma: where over-smoothing shows.

The radial power spectrum of luma (Rec. 601, in [-1, 1]) under a Hann window, summed above a cut-off given in cycles a
pixel (Nyquist is 0.5).  The default of 0.125 is one cycle in 8 pixels, the stride of an f8 VAE: this is the detail
*inside* one latent cell, which a mean over possible pictures loses first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CUT_OFF = 0.125
"""Cycles a pixel above which energy counts as high-frequency."""

_FLOOR = 1e-12
_LUMA = (0.299, 0.587, 0.114)


def luma(pictures: Tensor) -> Tensor:
    """Rec. 601 luma of RGB pictures (B, 3, H, W) in [-1, 1]: (B, H, W)."""
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"pictures must be (B, 3, H, W), not {tuple(pictures.shape)}")
    red, green, blue = pictures.double().unbind(1)
    # Not a matrix product: it sums in another order for another number of pictures, on some machines.
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def energy(pictures: Tensor, cut_off: float = CUT_OFF) -> Tensor:
    """Mean squared luma above ``cut_off`` cycles a pixel, by Parseval's theorem, of windowed pictures: (B,), float64.

    The window keeps the jump between opposite borders from counting as detail.

    Raises:
        ValueError: a cut-off outside (0, 0.5).
    """
    if not 0.0 < cut_off < 0.5:
        raise ValueError(f"cut_off is in cycles a pixel, above 0 and below 0.5 (Nyquist), not {cut_off}")
    y = luma(pictures)
    height, width = y.shape[1:]
    window = torch.outer(
        torch.hann_window(height, periodic=False, dtype=y.dtype, device=y.device),
        torch.hann_window(width, periodic=False, dtype=y.dtype, device=y.device),
    )
    y = (y - y.mean(dim=(1, 2), keepdim=True)) * window
    power = torch.fft.fft2(y).abs().square() / (height * width) ** 2
    rows = torch.fft.fftfreq(height, dtype=y.dtype, device=y.device)
    columns = torch.fft.fftfreq(width, dtype=y.dtype, device=y.device)
    radius = (rows[:, None].square() + columns[None, :].square()).sqrt()
    above: Tensor = (power * (radius > cut_off)).sum(dim=(1, 2))
    return above


def log_ratio(output: Tensor, truth: Tensor) -> Tensor:
    """``log(E(output) / E(truth))`` of energies (B,): below 0 too smooth, 0 as crisp as truth, above 0 too noisy."""
    return (output.clamp(min=_FLOOR) / truth.clamp(min=_FLOOR)).log()


def distance_to_truth(output: Tensor, truth_draws: Tensor) -> Tensor:
    """``|log(E(output) / E(truth))|`` with the geometric mean energy of a picture's truth draws.

    A mean, not the nearest draw: the nearest of many energies would flatter any output.

    Args:
        output: energies (B,).
        truth_draws: energies (B, draws), draws at least 1.
    """
    typical = truth_draws.clamp(min=_FLOOR).log().mean(dim=1).exp()
    return log_ratio(output, typical).abs()


def as_decibel(ratio: Tensor) -> Tensor:
    """A natural log-ratio of energies in decibel."""
    return ratio * (10.0 / math.log(10.0))
