"""The score of ``bleeding``: the share of an effect that shows in an output that nobody asked to have it."""

from __future__ import annotations


def bleeding(to_truth: float, to_source: float, source_to_truth: float) -> float:
    """Share of the way from the unedited source s to the effect's truth m that an output y has gone: 0 to 1.

    The way is a straight one in the features whose squared Euclidean distance is given:
    ``<y - s, m - s> / |m - s|^2``, by polarisation from the three distances.  0: unedited, or edited in another direction; 1:
    as far as a true output, also of a stochastic effect, when m is the centre of its draws.

    Args:
        to_truth: ``|y - m|^2``.
        to_source: ``|y - s|^2``.
        source_to_truth: ``|m - s|^2``, above 0.

    Raises:
        ValueError: the source equals the truth, so that nothing could show.
    """
    if source_to_truth <= 0:
        raise ValueError("bleeding needs an effect that changes the picture, but a source is equal to its truth")
    return min(1.0, max(0.0, (to_source + source_to_truth - to_truth) / (2 * source_to_truth)))
