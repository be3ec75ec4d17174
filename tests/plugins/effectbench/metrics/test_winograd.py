"""Winograd's convolution against the direct one, over sizes that do and do not divide into tiles."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cldistill_plugins.effectbench.metrics import winograd


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (5, 7), (3, 3), (1, 2), (16, 17)])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (16, 5)])
def test_it_is_the_direct_convolution(size: tuple[int, int], inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((3, inputs, *size), generator=generator)
    kernel = torch.randn((outputs, inputs, 3, 3), generator=generator)
    bias = torch.randn(outputs, generator=generator)
    found = winograd.conv3x3(x.permute(0, 2, 3, 1), winograd.transform_kernel(kernel), bias).permute(0, 3, 1, 2)
    expected = F.conv2d(x, kernel, bias, padding=1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max() + 1e-5


def test_chunks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn((5, 8, 8, 4), generator=torch.Generator().manual_seed(1))
    kernel, bias = winograd.transform_kernel(torch.ones(2, 4, 3, 3)), torch.zeros(2)
    whole = winograd.conv3x3(x, kernel, bias)
    monkeypatch.setattr(winograd, "_CHUNK", 2 * 8 * 8 * 4)
    assert torch.allclose(winograd.conv3x3(x, kernel, bias), whole, atol=1e-5)
