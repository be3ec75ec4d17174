"""Subject consistency of an output on the paper's scale of 1 to 5 (VSA), for ``vsa-oracle``.  Pure functions of distances.

The paper asks a multimodal judge for the consistency of the subject: 1 to 5, and 0 for a bad case.  The oracle measures
how far the *structure* of an output is from the unedited source (by the third and fourth level of HED-VGG LPIPS, which see
objects and edges rather than colours and texture), between two anchors that the effect itself gives:

* 5: as far as the effect's own truth is, which keeps the subject as well as this effect can;
* 1: as far as the truth of *other* pictures is: the right effect on another subject.
"""

from __future__ import annotations

BEST, WORST = 5.0, 1.0
SMALLEST_GAP = 0.05
"""Least distance between the anchors, as a share of the farther one: below it an effect leaves no subject to look for."""


def consistency(output: float, truth: float, unrelated: float) -> float | None:
    """Score of one output, 1 to 5; None where the effect itself leaves nothing of the subject.

    Args:
        output: structural distance of the output to the unedited source.
        truth: that of the effect's own truth.
        unrelated: that of the effect's truth on other pictures.
    """
    gap = unrelated - truth
    if gap <= SMALLEST_GAP * unrelated:
        return None
    kept = (unrelated - output) / gap
    return WORST + (BEST - WORST) * min(1.0, max(0.0, kept))
