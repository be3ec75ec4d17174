"""Low and high spatial frequencies of differences between pictures: their size, and whether two of them agree.

The bands meet at `CUT_OFF` cycles a pixel, as in the metric ``high-frequency-energy``; the mean belongs to the low one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics.high_frequency import CUT_OFF

BANDS = ("low", "high")


def spectrum(pictures: Tensor) -> Tensor:
    """Spectrum ``[n, H, W]`` (complex128) of ``[n, H, W]`` under a Hann window.

    Scaled so that its summed squared magnitude is the mean square of the picture, weighted by the squared window: the
    jump between opposite borders, which a Fourier transform sees in every picture, does not count as detail.
    """
    height, width = pictures.shape[-2:]
    window = torch.outer(
        torch.hann_window(height, periodic=False, dtype=torch.float64),
        torch.hann_window(width, periodic=False, dtype=torch.float64),
    )
    scale = height * width * window.square().mean().sqrt()
    found: Tensor = torch.fft.fft2(pictures.double().cpu() * window) / scale
    return found


def mask(height: int, width: int, band: str, cut_off: float = CUT_OFF) -> Tensor:
    """Return a mask of a spectrum ``[H, W]``, true in one band: ``high`` is above ``cut_off`` cycles a pixel."""
    rows = torch.fft.fftfreq(height, dtype=torch.float64)
    columns = torch.fft.fftfreq(width, dtype=torch.float64)
    high: Tensor = (rows[:, None].square() + columns[None, :].square()).sqrt() > cut_off
    return high if band == "high" else ~high


def band_rms(spectra: Tensor, band: str) -> Tensor:
    """Root mean square ``[n]`` of what lies in a band, in units of the pictures; the bands' squares add up."""
    inside = mask(spectra.shape[-2], spectra.shape[-1], band)
    rms: Tensor = (spectra.abs().square() * inside).sum(dim=(-2, -1)).sqrt()
    return rms


def band_cosine(a: Tensor, b: Tensor, band: str) -> Tensor:
    """Cosine ``[n]`` of two differences inside a band, by Parseval; ``nan`` where one of them has nothing there.

    Args:
        a: spectra ``[n, H, W]``.
        b: spectra ``[n, H, W]``, or ``[1, H, W]`` for all of ``a``.
    """
    inside = mask(a.shape[-2], a.shape[-1], band)
    product = ((a.conj() * b).real * inside).sum(dim=(-2, -1))
    cosine: Tensor = product / (band_rms(a, band) * band_rms(b, band))
    return torch.where(cosine.isfinite(), cosine, torch.nan)


def rms(values: Tensor) -> Tensor:
    """Root mean square ``[n]`` of each of ``[n, ...]``."""
    return values.double().flatten(1).square().mean(dim=1).sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine ``[n]`` of two differences ``[n, ...]`` as vectors; ``nan`` where one of them is zero."""
    found = (a.double() * b.double()).flatten(1).mean(dim=1) / (rms(a) * rms(b))
    return torch.where(found.isfinite(), found, torch.nan)
