"""Is an output a failed effect, and which of the paper's failure families (Figure 6) is it?  Pure functions of distances.

The paper asks a multimodal judge for bad cases (BCR).  The oracle knows every effect's truth and asks what is *nearest*:

* an output is a **bad case** when the truth of another effect, or the unedited source, is nearer than its own truth;
* **style interference**: the nearest is another effect's truth, and the output is nearer to it than the source is;
* **generalisation collapse**: every other bad case: the unedited source is the nearest, or nothing is near: even the
  nearest truth is no nearer to the output than to the unedited source;
* **texture and detail loss** is the family of outputs that are *no* bad case: the right effect, but its detail is gone.
  They are tagged and counted on their own, for a blurred picture is still nearer to its sharp self than to anything else.

The truth of a stochastic effect is a distribution, and "near" means near to its *centre*.  The distance is a squared
Euclidean one, so for a fresh draw y of an effect with centre m and variance V, ``E|y - m|^2 = V``, while the unedited
source s is at ``E|y - s|^2 = V + |m - s|^2``: a true draw is nearer to its own truth.  The nearest of a few draws does not
have that property: two draws of confetti are twice as far from each other (2 V) as either is from the bare picture, and a
quarter of all fresh draws of the bank's stochastic effects would have been bad cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

STYLE_INTERFERENCE = "style-interference"
GENERALISATION_COLLAPSE = "generalisation-collapse"
TEXTURE_AND_DETAIL_LOSS = "texture-and-detail-loss"

SOFT = 0.5
"""Share of the truth's high-frequency energy below which detail counts as lost."""


@dataclass(frozen=True, slots=True)
class OracleVerdict:
    """The oracle's decision on one output, made by `judge`; ``bcr-oracle`` and ``vsa-oracle`` score it."""

    bad: bool
    family: str | None
    """A failure family; None for a good output."""
    nearest: str | None
    """The effect whose truth is nearest, None when the unedited source is nearer than all."""

    @property
    def soft(self) -> bool:
        """Return whether it is the right effect without its detail."""
        return self.family == TEXTURE_AND_DETAIL_LOSS


def judge(
    effect: str,
    to_truths: Mapping[str, float],
    to_source: float,
    source_to_truths: Mapping[str, float],
    detail: float | None = None,
    soft: float = SOFT,
) -> OracleVerdict:
    """Judge one output.

    Args:
        effect: the effect that was asked for, a key of the two mappings.
        to_truths: effect -> distance of the output to its truth.
        to_source: distance of the output to the unedited source.
        source_to_truths: effect -> distance of the unedited source to the same truths.
        detail: high-frequency energy of the output over the truth's, None where unknown.
        soft: share of the truth's detail below which an output counts as soft.
    """
    nearest = min(to_truths, key=to_truths.__getitem__)
    if min(to_source, to_truths[nearest]) >= to_truths[effect]:  # a tie is decided for the effect
        lost = detail is not None and detail < soft
        return OracleVerdict(False, TEXTURE_AND_DETAIL_LOSS if lost else None, effect)
    if to_source < to_truths[nearest]:
        return OracleVerdict(True, GENERALISATION_COLLAPSE, None)
    like_it = to_truths[nearest] < source_to_truths[nearest]
    return OracleVerdict(True, STYLE_INTERFERENCE if like_it else GENERALISATION_COLLAPSE, nearest)


def detail_ratio(output: float, truth_draws: list[float]) -> float:
    """High-frequency energy of an output over the geometric mean of its truth draws'."""
    typical = math.exp(sum(math.log(max(e, 1e-12)) for e in truth_draws) / len(truth_draws))
    return output / typical
