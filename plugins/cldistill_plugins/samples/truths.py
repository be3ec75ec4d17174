"""True outputs beside the pictures of a run: after-pictures of held-out pairs, and what a metric of the run knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL.Image import Resampling

from cldistill.component import BuildContext
from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.manifest.rules import lacking
from cldistill.protocols import KnowsTruth
from cldistill.records import Item

if TYPE_CHECKING:
    from PIL.Image import Image


def known_truths(context: BuildContext) -> list[KnowsTruth]:
    """Build the metrics of a run that know true outputs; one that lacks something knows none."""
    found = []
    for part in context.metrics:
        if part.needs.truth and lacking(part) is None:
            try:
                metric = part.build(context)
            except NotMeasured:
                continue
            if isinstance(metric, KnowsTruth):
                found.append(metric)
    return found


def true_output(truths: Sequence[KnowsTruth], item: Item, size: tuple[int, int]) -> Image | None:
    """Return what an effect truly makes of an item's picture, at ``size`` (width, height); None where nobody knows.

    That is its after-picture where it has one, else what the first of ``truths`` says that knows it.
    """
    if item.target is not None:
        return open_picture(item.target).resize(size, Resampling.LANCZOS)
    source = open_picture(item.sources[0]).resize(size, Resampling.LANCZOS)
    for known in truths:
        try:
            found = known.truth(item.pool, source, item.key.rpartition("/")[2])
        except NotMeasured:  # what makes the effect is not on this machine
            continue
        if found is not None:
            return found
    return None
