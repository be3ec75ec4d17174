"""The metrics of ``evaluate:``, built: what can measure here, what cannot and why, and by what its values are known."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cldistill.component import BuildContext
from cldistill.errors import NotMeasured
from cldistill.manifest.checked import Part
from cldistill.manifest.rules import lacking
from cldistill.protocols import KnowsStochastic, KnowsTruth, Metric
from cldistill.records import Column
from cldistill.storage.files import source_digest
from cldistill.storage.tensors import content_key


@dataclass(frozen=True)
class BuiltMetric:
    """A metric that can measure on this machine."""

    name: str
    metric: Metric
    identity: str
    """Hash of its name, options and version: the beginning of every key of what it finds."""
    probes: tuple[str, ...] = ()

    @property
    def cached_by(self) -> Literal["effect", "effects", "itself"] | None:
        """All that the metric promises that its values depend on, see `cldistill.protocols.Metric`."""
        promise: Literal["effect", "effects", "itself"] | None = getattr(self.metric, "cached_by", None)
        return promise

    def column(self, name: str) -> Column:
        """Return how one of its figures is shown."""
        columns = getattr(self.metric, "columns", {})
        return columns.get(name) or Column(name.replace("_", " "))

    @property
    def truth(self) -> KnowsTruth | None:
        """The metric, if it knows true outputs."""
        return self.metric if isinstance(self.metric, KnowsTruth) else None

    @property
    def stochastic(self) -> KnowsStochastic | None:
        """The metric, if it knows which effects draw."""
        return self.metric if isinstance(self.metric, KnowsStochastic) else None


Reasons = dict[str, str]
"""Component -> why it is not measured."""


def build_metrics(parts: Sequence[Part], context: BuildContext) -> tuple[list[BuiltMetric], Reasons]:
    """Build what can be built; the others are returned with the reason."""
    built: list[BuiltMetric] = []
    reasons: Reasons = {}
    for part in parts:
        absent = lacking(part)
        if absent is not None:
            reasons[part.name] = absent
            continue
        try:
            metric: Metric = part.build(context)
        except NotMeasured as error:
            reasons[part.name] = error.reason
            continue
        built.append(BuiltMetric(part.name, metric, _identity(part, metric), part.needs.probes))
    return built, reasons


def _identity(part: Part, metric: Metric) -> str:
    version: Any = getattr(metric, "version", None)
    options = part.settings.model_dump_json()
    if version is not None:
        return content_key("metric", part.name, options, str(version))
    return content_key("metric", part.name, options, code_digest(part.component.build), code_digest(metric))


def code_digest(made: object) -> str:
    """Hash the Python files in and below the folder in which a function, or the class of an object, was written.

    For the builder of a component that is the folder of its plugin, with all that the metric is likely to use.
    """
    file = inspect.getsourcefile(made if inspect.isfunction(made) else type(made))
    return source_digest(Path(file).parent) if file is not None else ""
