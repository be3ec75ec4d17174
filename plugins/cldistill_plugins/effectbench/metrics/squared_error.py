"""Squared error of an output to the known result of its instruction, for ``retention``."""

from __future__ import annotations

from torch import Tensor


def squared_error(output: Tensor, decoded_truth: Tensor) -> Tensor:
    """Mean squared error of each picture: two (B, 3, H, W) in [-1, 1] to (B,).

    Args:
        decoded_truth: the truth encoded and decoded by the VAE of the base.
    """
    if output.shape != decoded_truth.shape:
        raise ValueError(f"outputs {tuple(output.shape)} and truths {tuple(decoded_truth.shape)} must have one shape")
    return (output.float() - decoded_truth.float()).square().flatten(1).mean(dim=1)
