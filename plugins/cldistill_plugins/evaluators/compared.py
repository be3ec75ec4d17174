"""The metric that ``clip``, ``dino`` and ``dreamsim`` are: what systems made, compared in the features of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues

if TYPE_CHECKING:
    from .similarity import Against, Features


@dataclass(frozen=True)
class Compared:
    """Implements `cldistill.protocols.Metric`; the network is loaded when there is something to measure."""

    columns: Mapping[str, Column]
    names: Mapping[Against, str]
    """The kind of picture or text that outputs are compared with -> the column of the result."""
    version: str
    """Of code and weights: cached values go by it."""
    load: Callable[[], Features]
    """Raises `cldistill.errors.NotMeasured` where the weights cannot be loaded."""
    references: int
    """After-pictures of the effect's pairs; their mean counts."""
    batch_size: int
    distance: bool = False
    """Columns are ``1 - cosine``: 0 for the same picture."""
    cached_by: Literal["effect"] = "effect"

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure cosines, or distances.  Raises `cldistill.errors.NotMeasured` where the weights cannot be loaded."""
        from .similarity import Comparison

        return Comparison(self.load(), self.names, self.references, self.batch_size, self.distance)(request)
