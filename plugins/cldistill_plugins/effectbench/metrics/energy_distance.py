"""Does a sampler draw as the truth draws?  The energy distance between outputs and truth draws.

Székely & Rizzo, "Energy statistics: a class of statistics based on distances" (J. Stat. Plan. Inference 143, 2013),
eq. 5: ``D(P, Q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|``, zero exactly when the two distributions are equal, whatever the
dimension, and nothing to tune.

A system makes one output a picture, so the set of outputs spans pictures, whose content differs.  What is compared are
therefore *residuals*: the features of an output less the mean of its own picture's truth draws, against those of the
truth draws (each less the mean of the others).  A sampler that averages has residuals near zero, one that always draws
the same has the same residual everywhere, and both are far from the truth's spread.  (The distance of an output to its own
picture's draws alone cannot tell: a mean is nearer to all draws than any draw is.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def residuals(outputs: Tensor, draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Take each picture's own content out.

    Args:
        outputs: features of one output a picture, (P, D).
        draws: for each picture the features of its truth draws, (n, D), at least 2.

    Returns:
        Residuals of the outputs (P, D), and of all draws (sum of n, D).

    Raises:
        ValueError: a picture with fewer than two draws, or another number of pictures.
    """
    if len(outputs) != len(draws) or any(len(own) < 2 for own in draws):
        raise ValueError("residuals need two truth draws or more of every picture that has an output")
    mine = torch.stack([output - own.mean(dim=0) for output, own in zip(outputs, draws, strict=True)])
    # Leaving a draw out of the mean that it is compared with: otherwise it would be nearer to it than any output can be.
    truth = [own - (own.sum(dim=0) - own) / (len(own) - 1) for own in draws]
    return mine, torch.cat(truth)


def energy_values(outputs: Tensor, truth: Tensor) -> Tensor:
    """One value a picture whose mean is the energy distance, in units of the truth's own spread ``E|X - X'|``: (P,).

    The values are the U-statistic's first-order terms (Hoeffding 1948; a pair of outputs counts for both its pictures), so
    that a bootstrap over pictures has the right width.  0: drawn as the truth draws (a little below 0 by chance).  About
    0.4: all outputs are the mean of the truth, in many dimensions; more: shifted as well.

    Args:
        outputs: residuals (P, D), at least 2.
        truth: residuals (M, D), at least 2, not all equal.

    Raises:
        ValueError: too few rows, or a truth without any spread.
    """
    if len(outputs) < 2 or len(truth) < 2:
        raise ValueError(f"an energy distance needs two of each or more, not {len(outputs)} and {len(truth)}")
    spread = _mean_off_diagonal(truth)
    if spread <= 0:
        raise ValueError("the truth draws are all equal: there is no distribution to compare with")
    across = torch.cdist(outputs.double(), truth.double()).mean(dim=1)
    among = torch.cdist(outputs.double(), outputs.double()).sum(dim=1) / (len(outputs) - 1)
    return (2 * across - (2 * among - among.mean()) - spread) / spread


def _mean_off_diagonal(rows: Tensor) -> Tensor:
    table = torch.cdist(rows.double(), rows.double())
    mean: Tensor = table.sum() / (len(rows) * (len(rows) - 1))
    return mean
