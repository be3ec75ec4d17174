"""Bands of waves whose frequency is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cldistill_plugins.effectbench.figures.bands import band_cosine, band_rms, cosine, mask, rms, spectrum

SIDE = 64


def wave(period: float, amplitude: float = 1.0, phase: float = 0.0) -> Tensor:
    """A wave along the rows, ``[1, SIDE, SIDE]``; ``period`` in pixels."""
    x = torch.arange(SIDE, dtype=torch.float64)
    return (amplitude * torch.cos(2 * math.pi * x / period + phase)).expand(1, SIDE, SIDE)


@pytest.mark.parametrize(("period", "inside", "outside"), [(4, "high", "low"), (16, "low", "high")])
def test_a_wave_lies_in_its_band_with_its_root_mean_square(period: float, inside: str, outside: str) -> None:
    found = spectrum(wave(period, 0.5))
    assert float(band_rms(found, inside)) == pytest.approx(0.5 / math.sqrt(2), rel=1e-3)
    assert float(band_rms(found, outside)) < 1e-3


def test_a_constant_is_low() -> None:
    found = spectrum(torch.full((1, SIDE, SIDE), -0.3))
    assert float(band_rms(found, "low")) == pytest.approx(0.3)
    assert float(band_rms(found, "high")) < 1e-3


def test_the_squares_of_the_bands_add_up_to_the_windowed_picture() -> None:
    pictures = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0)).double()
    rows, columns = (torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (24, 40))
    window = torch.outer(rows, columns)
    expected = (pictures * window).square().mean(dim=(1, 2)) / window.square().mean()
    found = spectrum(pictures)
    assert torch.allclose(band_rms(found, "low") ** 2 + band_rms(found, "high") ** 2, expected)


def test_the_cut_off_is_an_eighth_of_a_cycle() -> None:
    high = mask(16, 16, "high")
    # Row 2 of 16 is 2/16 = 0.125 cycles a pixel: not above it; row 3 is.
    assert not bool(high[2, 0]) and bool(high[3, 0]) and bool(high[2, 1])
    assert bool((high ^ mask(16, 16, "low")).all())


def test_bands_agree_each_for_itself() -> None:
    a, b = spectrum(wave(4) + wave(16)), spectrum(0.5 * wave(4) - 3 * wave(16))
    assert float(band_cosine(a, b, "high")) == pytest.approx(1.0, abs=1e-3)
    assert float(band_cosine(a, b, "low")) == pytest.approx(-1.0, abs=1e-3)


def test_a_shifted_wave_is_across() -> None:
    a, b = spectrum(wave(4)), spectrum(wave(4, phase=math.pi / 2))
    assert float(band_cosine(a, b, "high")) == pytest.approx(0.0, abs=1e-3)


def test_one_picture_is_compared_with_many() -> None:
    many = spectrum(torch.cat([wave(4), -wave(4)]))
    assert band_cosine(many, spectrum(wave(4)), "high").tolist() == pytest.approx([1.0, -1.0])


def test_nothing_has_no_direction() -> None:
    nothing = torch.zeros(1, SIDE, SIDE)
    assert band_cosine(spectrum(nothing), spectrum(wave(4)), "high").isnan().all()
    assert cosine(torch.zeros(1, 3), torch.ones(1, 3)).isnan().all()


def test_hand_computed() -> None:
    assert rms(torch.tensor([[3.0, 4.0], [0.0, 2.0]])).tolist() == pytest.approx([math.sqrt(12.5), math.sqrt(2)])
    assert float(cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))) == pytest.approx(24 / 25)
