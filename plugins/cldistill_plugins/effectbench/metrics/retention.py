"""Retention: does a student still follow general instructions as well as its base?

``error(base) / error(student)``, errors against VAE(truth) so that neither is charged with what the VAE loses: 1 is as
good as the base, below 1 forgotten, above 1 better than the base.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor


def squared_error(output: Tensor, decoded_truth: Tensor) -> Tensor:
    """Mean squared error of each picture: two (B, 3, H, W) in [-1, 1] to (B,).

    Args:
        decoded_truth: the truth encoded and decoded by the VAE of the base.
    """
    if output.shape != decoded_truth.shape:
        raise ValueError(f"outputs {tuple(output.shape)} and truths {tuple(decoded_truth.shape)} must have one shape")
    return (output.float() - decoded_truth.float()).square().flatten(1).mean(dim=1)


def retention(base_errors: ArrayLike, student_errors: ArrayLike) -> float:
    """``mean(error(base)) / mean(error(student))`` over the same general items.

    A ratio of means: a mean of ratios would be ruled by the items that the base solves almost exactly.

    Raises:
        ValueError: shapes differ, there are no items, an error is negative or not finite, or the student's are all 0.
    """
    base, student = np.asarray(base_errors, dtype=np.float64), np.asarray(student_errors, dtype=np.float64)
    if base.shape != student.shape or base.size == 0:
        raise ValueError(
            f"retention needs the same items for base {base.shape} and student {student.shape}, at least one"
        )
    if not (np.isfinite(base).all() and np.isfinite(student).all() and (base >= 0).all() and (student >= 0).all()):
        raise ValueError("retention needs finite errors that are not negative")
    if student.mean() == 0.0:
        raise ValueError("the student's errors are all exactly 0: outputs were compared with themselves")
    return float(base.mean() / student.mean())
