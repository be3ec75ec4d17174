"""Which effect is this picture?  Nearest centroid in a standardised feature space.

Centroids come from true outputs of *other* pictures (leave one picture out), so that no content can be matched: of twelve
held-out pictures the classifier knows an effect's truth on eleven and is asked about the twelfth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_FLOOR = 1e-4
"""Least deviation by which a dimension is divided, as a share of the mean one: dead channels must not decide."""


def recognise(features: Tensor, truths: Mapping[str, Sequence[Tensor]]) -> list[str]:
    """Name the effect of each output.

    Args:
        features: of outputs, (N, D).
        truths: effect -> for each of the *other* pictures, at least one, the features of its truth draws (draws, D).
    """
    pictures = {name: torch.stack([draws.mean(dim=0) for draws in own]) for name, own in truths.items()}
    centroids = torch.stack([rows.mean(dim=0) for rows in pictures.values()])
    within = torch.stack([rows.var(dim=0, correction=0) for rows in pictures.values()]).mean(dim=0).sqrt()
    # With a single other picture nothing is known of the spread within an effect: every dimension counts alike.
    scale = within.clamp_min(_FLOOR * float(within.mean())) if bool(within.any()) else torch.ones_like(within)
    nearest = torch.cdist(features / scale, centroids / scale).argmin(dim=1)
    names = list(truths)
    return [names[int(index)] for index in nearest]
