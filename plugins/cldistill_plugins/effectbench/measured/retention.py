"""``retention``: can the student still do what its base could?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import GENERAL, Column, MetricValues, Ratio
from cldistill.storage.files import file_digest

from ..metrics.squared_error import squared_error
from .held_out import to_signal
from .truths import decoded

if TYPE_CHECKING:
    from PIL.Image import Image


class Retention:
    """``retention = mean(error(base)) / mean(error(system))`` on the general items whose truth is known.

    Errors are against VAE(truth), so that no system is charged with what the VAE loses.  1: as good as the base, below 1:
    forgotten.  A ratio of means: a mean of ratios would be ruled by the items that the base solves almost exactly.
    """

    version = "3"
    columns: ClassVar[Mapping[str, Column]] = {
        "retention": Column("general instructions kept", "higher"),
        "error": Column("squared error on general instructions", "lower"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system that edited the general pool.

        Raises:
            NotMeasured: no general instruction has a truth, or the base itself is not among the systems.
        """
        known = {index: item.target for index, item in enumerate(request.items.get(GENERAL, ())) if item.target}
        base = request.outputs.get(request.reference or "", {})
        if not known:
            raise NotMeasured("no held-out general instruction has a target, the picture that it should give")
        if GENERAL not in base:
            raise NotMeasured("the bare base, with which it compares, is not among the systems")
        truths = []
        for done, path in enumerate(known.values(), start=1):
            truths.append(_decoded(request, path))
            request.advance(done / len(known))
        errors = {
            system: _errors([pools[GENERAL][index] for index in known], truths)
            for system, pools in request.outputs.items()
            if GENERAL in pools
        }
        unchanged = errors[str(request.reference)]
        count = len(request.items[GENERAL])
        return {
            system: {
                GENERAL: MetricValues({"error": spread(own, known, count)}, ratios={"retention": Ratio(unchanged, own)})
            }
            for system, own in errors.items()
        }


def spread(values: Sequence[float], places: Mapping[int, object], count: int) -> list[float]:
    """Put values at their places among ``count``, and ``nan`` elsewhere."""
    row = [float("nan")] * count
    for place, value in zip(places, values, strict=True):
        row[place] = value
    return row


def _decoded(request: MetricRequest, path: Path) -> Tensor:
    return decoded(request, ("general", file_digest(path)), lambda: [open_picture(path)])


def _errors(outputs: Sequence[Image], truths: Sequence[Tensor]) -> list[float]:
    return [float(squared_error(to_signal([made]), truth)) for made, truth in zip(outputs, truths, strict=True)]
