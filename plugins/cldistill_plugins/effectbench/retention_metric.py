"""Retention: can the student still do what its base could?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cldistill.data import open_picture
from cldistill.protocols import MetricRequest
from cldistill.records import GENERAL, MetricValues

from .metrics.retention import retention, squared_error
from .truth_metrics import to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

BASE = "base"


class Retention:
    """``retention = error(base) / error(system)`` against VAE(truth) on the general items whose truth is known."""

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system that edited the general pool."""
        items = request.items.get(GENERAL, ())
        known = [index for index, item in enumerate(items) if item.target is not None]
        if not known or GENERAL not in request.outputs.get(BASE, {}):
            return {}
        truths = []
        for done, index in enumerate(known, start=1):
            target = items[index].target
            assert target is not None
            truths.extend(request.reconstruct([open_picture(target)]))
            request.advance(done / len(known))
        errors = {
            system: self._errors([pools[GENERAL][index] for index in known], truths)
            for system, pools in request.outputs.items()
            if GENERAL in pools
        }
        return {
            system: {GENERAL: MetricValues({"error": own}, {"retention": retention(errors[BASE], own)})}
            for system, own in errors.items()
        }

    @staticmethod
    def _errors(outputs: Sequence[Image], truths: Sequence[Image]) -> list[float]:
        pairs = zip(outputs, truths, strict=True)
        return [float(squared_error(to_tensor([output]), to_tensor([truth]))) for output, truth in pairs]
