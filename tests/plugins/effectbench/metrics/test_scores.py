"""Identities of the pure scores: closeness, nearest effect, high-frequency energy, bootstrap and squared error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cldistill_plugins.effectbench.metrics import high_frequency
from cldistill_plugins.effectbench.metrics.closeness import closeness, nearest_draw, nearest_effect
from cldistill_plugins.effectbench.metrics.squared_error import squared_error
from cldistill_plugins.evaluation.api import mean_interval, paired_difference


@pytest.fixture
def noise() -> Tensor:
    return torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_closeness_is_one_at_the_truth_zero_at_the_source_and_negative_beyond() -> None:
    assert closeness([0.0, 0.4, 0.8, 0.1], [0.4, 0.4, 0.4, 0.4]).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.75])
    with pytest.raises(ValueError, match="equal to its truth"):
        closeness([0.1], [0.0])


def test_the_nearest_draw_counts() -> None:
    assert nearest_draw([[0.5, 0.2, 0.9], [0.3, 0.7, 0.1]]).tolist() == [0.2, 0.1]
    with pytest.raises(ValueError, match="at least one draw"):
        nearest_draw(np.empty((2, 0)))
    with pytest.raises(ValueError, match="not finite"):
        nearest_draw([math.nan, 0.1])


def test_the_known_effect_wins() -> None:
    found = nearest_effect({"frame": [0.5, 0.11, 0.6], "style": [0.12]})
    assert found.effect == "frame" and found.is_right("frame") and not found.is_right("style")
    assert dict(found.distances) == {"frame": 0.11, "style": 0.12}
    with pytest.raises(ValueError, match="at least one effect"):
        nearest_effect({})


def test_blur_lowers_high_frequency_energy_and_a_flat_picture_has_none(noise: Tensor) -> None:
    blurred = F.avg_pool2d(F.pad(noise, [2] * 4, mode="reflect"), 5, stride=1)
    assert (high_frequency.energy(blurred) < 0.1 * high_frequency.energy(noise)).all()
    assert high_frequency.energy(torch.full((1, 3, 32, 32), 0.3)).item() == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize(("period", "counts"), [(4, True), (32, False)])
def test_a_wave_counts_above_the_cut_off_only(period: int, counts: bool) -> None:
    wave = torch.sin(2 * math.pi * torch.arange(64) / period).expand(1, 3, 64, 64)
    total = high_frequency.energy(wave, cut_off=1e-3).item()
    share = high_frequency.energy(wave).item() / total
    assert share > 0.99 if counts else share < 0.01


def test_energy_is_the_variance_of_the_windowed_picture() -> None:
    # Parseval: without a cut-off worth the name, the sum over frequencies is the mean square less the mean's square.
    x = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(3), dtype=torch.float64).expand(1, 3, 32, 32)
    window = torch.hann_window(32, periodic=False, dtype=torch.float64)
    y = (x[0, 0] - x[0, 0].mean()) * torch.outer(window, window)
    expected = y.square().mean() - y.mean().square()
    assert high_frequency.energy(x, cut_off=1e-3).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_log_ratio_is_zero_at_the_truth_and_negative_when_smoother(noise: Tensor) -> None:
    truth = high_frequency.energy(noise)
    assert high_frequency.log_ratio(truth, truth).abs().max().item() == 0.0
    half = high_frequency.log_ratio(high_frequency.energy(noise / 2), truth)
    assert half.tolist() == pytest.approx([math.log(0.25)] * 4)
    assert high_frequency.as_decibel(half).tolist() == pytest.approx([-6.0206] * 4, abs=1e-3)


def test_the_distance_to_draws_uses_their_geometric_mean() -> None:
    draws = torch.tensor([[1.0, 4.0], [2.0, 2.0]])
    assert high_frequency.distance_to_truth(torch.tensor([2.0, 1.0]), draws).tolist() == pytest.approx(
        [0.0, math.log(2)], abs=1e-6
    )


def test_impossible_cut_offs_and_shapes_are_refused(noise: Tensor) -> None:
    with pytest.raises(ValueError, match="Nyquist"):
        high_frequency.energy(noise, cut_off=0.6)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        high_frequency.energy(noise[:, 0])


def test_a_constant_has_an_interval_without_width() -> None:
    found = mean_interval([0.1] * 7)
    assert (found.mean, found.low, found.high, found.n) == (0.1, 0.1, 0.1, 7)


def test_the_interval_holds_the_mean_is_seeded_and_shrinks_with_more_pictures() -> None:
    values = np.random.default_rng(0).normal(1.0, 0.5, 400)
    few, many = mean_interval(values[:25]), mean_interval(values)
    assert few.low < few.mean < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    # The normal approximation: plus or minus 1.96 standard errors.
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert mean_interval(values) == many
    assert mean_interval(values, seed=1) != many


def test_whole_pictures_are_resampled_when_there_are_several_effects() -> None:
    per_picture = np.random.default_rng(1).normal(size=(30, 1)) + np.zeros((30, 6))
    assert mean_interval(per_picture) == mean_interval(per_picture[:, 0])


def test_a_paired_difference_sees_what_the_spread_of_pictures_hides() -> None:
    generator = np.random.default_rng(2)
    hard = generator.normal(0.0, 5.0, 40)
    a, b = hard + 0.3 + generator.normal(0.0, 0.1, 40), hard
    difference = paired_difference(a, b)
    assert difference.clear_of_zero and difference.mean == pytest.approx(0.3, abs=0.06)
    assert not paired_difference(b, b).clear_of_zero
    with pytest.raises(ValueError, match="same pictures"):
        paired_difference(a, b[:5])


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_nothing_and_nan_have_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="a mean over pictures"):
        mean_interval(values)


def test_squared_error_is_a_mean_over_each_picture(noise: Tensor) -> None:
    assert squared_error(noise, noise).tolist() == [0.0] * 4
    assert squared_error(noise + 0.5, noise).tolist() == pytest.approx([0.25] * 4, rel=1e-4)
    with pytest.raises(ValueError, match="one shape"):
        squared_error(noise, noise[:2])
