"""The maths of ``detail-fm``: pure functions of tensors."""

from __future__ import annotations

from torch import Tensor


def detail_weighted_error(predicted: Tensor, wanted: Tensor, weight: float) -> Tensor:
    """Return ``mean(shared^2) + weight * mean(detail^2)`` of the error, a scalar in fp32.

    ``predicted`` and ``wanted`` are ``[B, ...]``.  ``shared`` is each sample's mean error, ``detail`` what is left.  The two
    are orthogonal, so weight 1 is the ordinary mean squared error.
    """
    error = (predicted.float() - wanted.float()).flatten(1)
    shared = error.mean(dim=1, keepdim=True)
    return shared.square().mean() + weight * (error - shared).square().mean()
