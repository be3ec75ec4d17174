"""The distribution-matching gradient that BS-DMD and TS-DMD share (arXiv 2605.25378 section 3.3, after DMD2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6
"""Keeps the normaliser away from zero where the teacher agrees with the student to the last bit."""


@dataclass(frozen=True)
class DmdGradient:
    """``g`` ``[B, ...]`` fp32, and the per-sample normaliser ``[B]``."""

    gradient: Tensor
    normaliser: Tensor


def dmd_gradient(fake_x0: Tensor, real_x0: Tensor, student_x0: Tensor) -> DmdGradient:
    """Return ``(f - r) / mean(|y - r|)`` per sample.

    ``fake_x0`` is the critic's estimate of the clean latent, ``real_x0`` the guided teacher's, ``student_x0`` the
    student's output, all ``[B, ...]``.  Computed in fp32: in bf16 the difference of two close estimates keeps few bits.
    Non-finite entries become 0, so that one bad sample does not take the batch's update with it.
    """
    fake, real, student = fake_x0.float(), real_x0.float(), student_x0.detach().float()
    normaliser = (student - real).abs().flatten(1).mean(dim=1).clamp_min(EPS)
    gradient = (fake - real) / normaliser.reshape(-1, *([1] * (fake.ndim - 1)))
    return DmdGradient(torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0), normaliser)


def dmd_loss(student_x0: Tensor, gradient: Tensor) -> Tensor:
    """Return ``0.5 * mse(y, stop_grad(y - g))``: its gradient with respect to ``y`` is ``g / numel``."""
    student = student_x0.float()
    target = (student - gradient).detach()
    return 0.5 * torch.nn.functional.mse_loss(student, target)
