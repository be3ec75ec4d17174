"""A classifier that tells by which effect a picture was made, for ``effect-recognition``.

Regularised linear discriminant analysis on what is known of other pictures.

Fisher's discriminant with a covariance within effects that is shrunk towards its diagonal (Friedman 1989, "Regularized
discriminant analysis"): the nearest centroid by the Mahalanobis distance.  Centroids come from true outputs of *other*
pictures (leave one picture out), so that no content can be matched: of twelve held-out pictures the classifier knows an
effect's truth on eleven and is asked about the twelfth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SHRINKAGE = 0.5
"""Weight of the diagonal: there are far more dimensions than pictures."""
_FLOOR = 1e-4
"""Least deviation by which a dimension is divided, as a share of the mean one: dead channels must not decide."""


class Recogniser:
    """Knows effects by features of their truths."""

    def __init__(self, truths: Mapping[str, Sequence[Tensor]]) -> None:
        """Args: truths: effect -> for each of the known pictures, at least one, features of its draws (draws, D)."""
        self._names = list(truths)
        # Double precision: centroids differ by far less than their lengths.
        means = torch.stack([torch.stack([draws.double().mean(dim=0) for draws in own]) for own in truths.values()])
        centroids = means.mean(dim=1)
        self._whitener = _whitener((means - centroids[:, None]).flatten(0, 1))
        self._centroids = centroids @ self._whitener

    def names(self, features: Tensor) -> list[str]:
        """Name the effect of each picture by its features (N, D)."""
        nearest = torch.cdist(features.double() @ self._whitener, self._centroids).argmin(dim=1)
        return [self._names[int(index)] for index in nearest]


def _whitener(within: Tensor) -> Tensor:
    """Matrix (D, D) after which deviations within effects (M, D) are about alike in all directions."""
    deviation = within.square().mean(dim=0).sqrt()
    if not bool(deviation.any()):  # a single known picture tells nothing of the spread within an effect
        return torch.eye(within.shape[1], dtype=within.dtype)
    scale = deviation.clamp_min(_FLOOR * float(deviation.mean()))
    scaled = within / scale
    covariance = (1 - SHRINKAGE) * scaled.T @ scaled / len(scaled) + SHRINKAGE * torch.eye(len(scale)).to(scaled)
    whitener: Tensor = torch.linalg.inv(torch.linalg.cholesky(covariance)).T / scale[:, None]
    return whitener
