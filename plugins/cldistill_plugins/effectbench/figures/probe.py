"""One training pair of one effect in an opened run: what the student makes of it, and how critic and teacher differ on that.

The losses themselves (BS-DMD, TS-DMD; arXiv 2605.25378 section 3.3) draw one noise level an update.  A figure wants many on
the same sample, so the comparison is done here, with the same context, networks, prompts and formulas; all levels share
one noise, so that neighbours on a curve differ by the level alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cldistill.errors import DataError
from cldistill.protocols import UpdateContext
from cldistill.schedule import Schedule, add_noise, expand, to_x0
from cldistill_plugins.effectbench.figures.opened import OpenedRun

from ..metrics.high_frequency import luma
from .bands import rms

STEP = 0.05
"""Length of the step by which a direction is looked at in pictures, as a share of the sample's own root mean square.

Long enough to stand out of the 8 bits of a decoded picture, short enough for the decoder to be nearly linear: on the
quickstart's run, half of it and twice as much give the same band to within a few percent.
"""
EPS = 1e-6


@dataclass(frozen=True)
class CriticDifference:
    """Critic and teacher on one sample, diffused to ``n`` noise levels."""

    difference: Tensor
    """``f - r`` ``[n, ...]``: the critic's ``x0`` minus the guided teacher's."""
    normaliser: Tensor
    """``mean |y - r|`` ``[n]``: what the loss divides it by."""


@dataclass(frozen=True)
class Probe:
    """Measures on one pair; every method is without gradients."""

    opened: OpenedRun
    effect: str
    pair: int
    critic: str = "critic"
    rows: int = 12
    """Noise levels, or pictures, in one call of a network: more are faster and need more memory."""

    def context(self, copies: int = 1) -> UpdateContext:
        """Return the update's context with the pair ``copies`` times in its batch."""
        return self.opened.update(self.effect, self.pair, copies)

    @property
    def schedule(self) -> Schedule:
        """The student's sampler."""
        return self.opened.run.schedule

    def target(self) -> Tensor:
        """Return the target ``y`` ``[1, ...]``."""
        target = self.context().batch.target
        assert target is not None, "an opened run has targets"
        return target

    @torch.no_grad()
    def backward_simulated(self) -> Tensor:
        """Return the output ``[1, ...]`` that BS-DMD trains on: of the student's own rollout, stopped at a drawn step."""
        return self.context().sample()

    @torch.no_grad()
    def target_simulated(self, sigmas: Tensor) -> Tensor:
        """Return the outputs ``[n, ...]`` that TS-DMD trains on: of one student call on the target diffused to ``sigmas``."""

        def predict(context: UpdateContext, sigma: Tensor) -> Tensor:
            noise = self._noise(context, "target-noise")
            x = add_noise(self.target(), noise, sigma)
            return to_x0(x, context.student(x, sigma), sigma)

        return self._chunked(sigmas, predict)

    def drawn_low_step(self, tau_max: float) -> Tensor:
        """Draw one of the student's own sigmas ``[1]`` strictly below ``tau_max / 1000``, as TS-DMD does.

        Raises:
            DataError: no step of the sampler lies below the bound.
        """
        sigmas = self.schedule.sigmas()
        low = sigmas[sigmas < tau_max / 1000.0 - EPS]
        if not len(low):
            raise DataError(f"no step of this run's sampler lies below t = {tau_max:g}: choose a larger --tau-max")
        index = self.context().random.integer(len(low), "low-step")
        return low[index : index + 1]

    @torch.no_grad()
    def compare(self, student_x0: Tensor, sigmas: Tensor) -> CriticDifference:
        """Let critic and teacher look at one output ``[1, ...]`` at ``n`` noise levels."""

        def both(context: UpdateContext, sigma: Tensor) -> Tensor:
            noised = add_noise(student_x0, self._noise(context, "score-noise"), sigma)
            fake = to_x0(noised, context.slot(self.critic, noised, sigma), sigma)
            return torch.stack([fake, to_x0(noised, context.teacher(noised, sigma), sigma)], dim=1)

        fake, real = self._chunked(sigmas, both).float().unbind(dim=1)
        distance = (student_x0.float() - real).abs().flatten(1).mean(dim=1)
        return CriticDifference(fake - real, distance.clamp_min(EPS))

    @torch.no_grad()
    def picture(self, x0: Tensor) -> Tensor:
        """Return the luma ``[n, H, W]`` (float64, in [-1, 1]) of decoded latents ``[n, ...]``."""

        def decode(context: UpdateContext, part: Tensor) -> Tensor:
            pictures = self.opened.run.base.decode(part, context.batch.student.source)
            levels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).movedim(-1, 1)
            return luma(levels.double() / 127.5 - 1.0)

        return self._chunked(x0, decode)

    def step_in_pictures(self, student_x0: Tensor, directions: Tensor, shown: Tensor) -> Tensor:
        """Return what a short step along each latent direction changes in the picture, per unit of its length.

        Args:
            student_x0: where the step starts, ``[1, ...]``.
            directions: ``[n, ...]``; their length (root mean square) does not matter.
            shown: `picture` of ``student_x0``, ``[1, H, W]``.

        Returns:
            ``[n, H, W]``: luma per unit root mean square of the latent step; times ``rms(direction)`` it is the change that
            the whole direction would make if the decoder were linear.
        """
        size = STEP * float(rms(student_x0))
        unit = directions / expand(rms(directions).clamp_min(1e-12), directions).to(directions.dtype)
        return (self.picture(student_x0 + size * unit) - shown) / size

    @staticmethod
    def _noise(context: UpdateContext, purpose: str) -> Tensor:
        """One noise ``[1, ...]`` for all levels."""
        return context.random.normal((1, *context.batch.latent_shape), purpose)

    def _chunked(self, rows: Tensor, work: Callable[[UpdateContext, Tensor], Tensor]) -> Tensor:
        """Work through ``rows`` ``[n, ...]`` by at most as many as go into one call."""
        device = self.opened.run.accelerator.device
        return torch.cat([work(self.context(len(part)), part.to(device)) for part in torch.split(rows, self.rows)])
