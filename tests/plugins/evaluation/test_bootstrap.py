"""Intervals over pictures: identities with the plain mean, missing values, ratios, and paired draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cldistill_plugins.evaluation.bootstrap import mean_interval, resample

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(16, 5))


def test_without_gaps_it_is_the_mean_over_everything() -> None:
    found = resample(VALUES).interval()
    assert found.mean == pytest.approx(VALUES.mean())
    plain = mean_interval(VALUES)
    assert (found.low, found.high, found.n) == pytest.approx((plain.low, plain.high, 16))


def test_a_gap_counts_in_no_mean() -> None:
    gappy = VALUES.copy()
    gappy[0, 0] = math.nan
    means = [column[np.isfinite(column)].mean() for column in gappy.T]
    assert resample(gappy).figure == pytest.approx(np.mean(means))
    gappy[:, 1] = math.nan  # an effect without any value does not count
    assert resample(gappy).figure == pytest.approx(np.mean([means[0], *means[2:]]))
    nothing = resample(np.full((3, 2), math.nan)).interval()
    assert math.isnan(nothing.mean)
    assert nothing.n == 0


def test_a_constant_has_no_width() -> None:
    found = resample(np.full((7, 3), 0.1)).interval()
    assert found.low == found.mean == found.high == 0.1


def test_one_picture_has_no_interval() -> None:
    gaps = np.full((4, 3), math.nan)
    gaps[2] = 0.5, 0.25, 0.75
    for values in (np.array([0.5]), VALUES[:1], gaps):
        found = resample(values).interval()
        assert found.mean == pytest.approx(np.nanmean(values)) and found.n == 1
        assert math.isnan(found.low) and math.isnan(found.high) and not found.clear_of_zero
    assert not math.isnan(resample(VALUES[:2]).interval().low)


def test_a_ratio_of_means() -> None:
    top, bottom = RANDOM.uniform(1, 2, 20), RANDOM.uniform(3, 4, 20)
    found = resample(top, bottom).interval()
    assert found.mean == pytest.approx(top.mean() / bottom.mean())
    assert found.low < found.mean < found.high
    with pytest.raises(ValueError, match="same pictures twice"):
        resample(top, bottom[:5])


def test_draws_of_two_systems_are_paired() -> None:
    other = VALUES + 0.25  # each picture alone is far noisier than the difference
    difference = resample(other).draws - resample(VALUES).draws
    assert np.allclose(difference, 0.25)
