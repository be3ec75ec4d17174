"""How much of an effect shows where nobody asked for it."""

from __future__ import annotations


def bleeding(output: float, source: float) -> float:
    """Share of the way from the unedited source to the effect's truth that an output has gone: 0 to 1.

    Args:
        output: distance of the output to the effect's nearest truth.
        source: distance of the unedited source to it, above 0.

    Raises:
        ValueError: the source equals the truth, so that nothing could show.
    """
    if source <= 0:
        raise ValueError("bleeding needs an effect that changes the picture, but a source is equal to its truth")
    return min(1.0, max(0.0, 1.0 - output / source))
