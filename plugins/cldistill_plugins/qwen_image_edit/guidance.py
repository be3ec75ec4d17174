"""Classifier-free guidance of velocities, in the two ways in use for this family."""

from __future__ import annotations

import torch
from torch import Tensor


def standard(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return ``u + w (c - u)``.

    The same on ``v`` and on ``x0 = x - sigma v``, affine in ``v``.  The released code's ``c + 4 (c - u)`` is w = 5.
    """
    return unconditional + scale * (conditional - unconditional)


def rescaled(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the guided velocity, each token rescaled to its conditional norm (diffusers' Qwen pipelines)."""
    combined = standard(conditional, unconditional, scale)
    norm = torch.norm(conditional, dim=-1, keepdim=True)
    guided: Tensor = combined * (norm / torch.norm(combined, dim=-1, keepdim=True))
    return guided
