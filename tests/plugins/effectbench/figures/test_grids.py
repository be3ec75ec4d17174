"""Figures 4 and 5 of single pairs: what must hold whatever the networks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from cldistill_plugins.effectbench.figures.bands import rms
from cldistill_plugins.effectbench.figures.bounds import CRITIC_TIMESTEPS, measure_bounds
from cldistill_plugins.effectbench.figures.draw_bounds import first_row_below
from cldistill_plugins.effectbench.figures.opened import OpenedRun
from cldistill_plugins.effectbench.figures.probe import CriticDifference, Probe
from cldistill_plugins.effectbench.figures.vanishing import TIMESTEPS, measure_vanishing


def test_the_difference_vanishes_with_the_noise(probe: Probe) -> None:
    found = measure_vanishing(probe, 750.0)
    assert set(found) == {
        f"{sample}/{part}/{form}"
        for sample in ("bs", "ts") for part in ("latent", "low", "high") for form in ("difference", "normalised")
    }  # fmt: skip
    for sample in ("bs", "ts"):
        size = found[f"{sample}/latent/difference"]
        assert size.shape == (len(TIMESTEPS),) and 0 < size[0] < 0.1 * size[-1]
        ratio = found[f"{sample}/high/normalised"] / found[f"{sample}/high/difference"]
        assert ratio == pytest.approx(found[f"{sample}/latent/normalised"] / size)


@dataclass(frozen=True)
class Faded(Probe):
    """A student whose outputs have 0.8 of the target's contrast, and a gradient that knows it: ``f - r = y-hat - y``."""

    def target_simulated(self, sigmas: Tensor) -> Tensor:
        """Return the same at every step."""
        return 0.8 * self.target().expand(len(sigmas), *self.target().shape[1:])

    def compare(self, student_x0: Tensor, sigmas: Tensor) -> CriticDifference:
        """Return the same at every noise level."""
        difference = (student_x0 - self.target()).expand(len(sigmas), *student_x0.shape[1:])
        return CriticDifference(difference, torch.full((len(sigmas),), 0.5))


def test_a_gradient_that_points_to_the_target_agrees_with_it(opened: OpenedRun) -> None:
    probe = Faded(opened, "soften", 0)
    found = measure_bounds(probe)
    grid = (8, len(CRITIC_TIMESTEPS))
    missing = 0.2 * float(rms(probe.target()))
    assert found["cosine/latent"] == pytest.approx(np.ones(grid))
    assert found["cosine/low"].min() > 0.95 and found["cosine/high"].min() > 0.9  # pictures have 8 bits
    assert found["distance"] == pytest.approx(np.full(8, missing))
    assert found["pull/latent"] == pytest.approx(np.full(grid, missing / 0.5))
    assert found["energy"] == pytest.approx(np.full(8, 20 * math.log10(0.8)), abs=0.1)


@pytest.mark.slow
def test_a_real_grid_stays_within_its_range(probe: Probe) -> None:
    found = measure_bounds(probe)
    assert found["energy"].shape == found["distance"].shape == (8,)
    for name in ("cosine/latent", "cosine/low", "cosine/high"):
        assert found[name].shape == (8, 8) and np.abs(found[name]).max() <= 1.0
    assert np.sign(found["pull/high"]).tolist() == np.sign(found["cosine/high"]).tolist()


def test_the_bound_lies_between_two_steps() -> None:
    steps = [1000.0, 954.5, 900.0, 833.3, 750.0, 642.9, 500.0, 300.0]
    assert first_row_below(steps, 750.0) == 5 and first_row_below(steps, 200.0) == 8
