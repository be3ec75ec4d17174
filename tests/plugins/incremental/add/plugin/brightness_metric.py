"""An installed plugin of the tests: the metric ``brightness``, of which more is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cldistill.component import Component, Needs, Settings, metric
from cldistill.markers import hookimpl
from cldistill.protocols import Metric, MetricRequest
from cldistill.records import Column, MetricValues


class NoOptions(Settings):
    """No options."""


class Brightness:
    """Mean of a picture's pixels, 0 to 1, and the same for a whole pool."""

    columns = {"brightness": Column("brightness", "higher"), "pool": Column("of the pool", "lower"), "n": Column("n")}  # noqa: RUF012

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every picture."""
        return {
            system: {pool: self._values(made) for pool, made in pools.items()}
            for system, pools in request.outputs.items()
        }

    def _values(self, made: Sequence[Any]) -> MetricValues:
        values = [float(np.asarray(picture).mean()) / 255 for picture in made]
        return MetricValues({"brightness": values}, {"pool": float(np.mean(values)), "n": len(values)})


@hookimpl
def register_metrics() -> Sequence[Component[Any, Metric]]:
    """``brightness``."""
    return [
        metric("brightness", "how bright", NoOptions, lambda settings: Needs(), lambda settings, context: Brightness())
    ]
