"""Agreement of evaluators beyond chance: Fleiss' kappa."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

WORDS = (
    (0.0, "poor"),
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.0, "almost perfect"),
)
"""Upper bounds of what Landis and Koch (1977, "The measurement of observer agreement") call a kappa."""


def fleiss_kappa(counts: npt.NDArray[np.float64]) -> float | None:
    """Return Fleiss' kappa (1971, "Measuring nominal scale agreement among many raters").

    ``counts[i, j]`` is how many evaluators gave set ``i`` to category ``j``.  Sets that fewer than two evaluators
    answered say nothing about agreement and are left out; the others need not have equally many (then every set's
    agreement counts the same).  ``None`` where nobody can agree or disagree: no such set, or all answers alike.
    """
    raters = counts.sum(axis=1)
    counts, raters = counts[raters >= 2], raters[raters >= 2]
    if not len(counts):
        return None
    agreement = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    chance = float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
    if np.isclose(chance, 1.0):
        return None
    return (float(agreement.mean()) - chance) / (1.0 - chance)


def in_words(kappa: float | None) -> str:
    """Return what a kappa is called."""
    if kappa is None:
        return "not defined"
    return next((word for bound, word in WORDS if kappa <= bound), WORDS[-1][1])
