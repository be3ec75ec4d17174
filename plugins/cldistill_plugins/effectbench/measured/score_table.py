"""The table that a metric fills with its values, picture by picture and in any order, and returns."""

from __future__ import annotations

import math
from collections import defaultdict

from cldistill.protocols import MetricRequest
from cldistill.records import MetricValues

from .held_out import SampleKey


class ScoreTable:
    """Values and tags of one metric by sample; what was never written is ``nan``, or no tag."""

    def __init__(self, request: MetricRequest) -> None:
        self._items = request.items
        self._values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
        self._tags: dict[tuple[str, str], dict[str, list[str | None]]] = defaultdict(dict)

    def put(self, key: SampleKey, name: str, value: float | None) -> None:
        """Write one value; None is a value that could not be found."""
        row = self._values[key.system, key.pool].setdefault(name, [math.nan] * len(self._items[key.pool]))
        row[key.at] = math.nan if value is None else float(value)

    def tag(self, key: SampleKey, name: str, word: str | None) -> None:
        """Write one word."""
        row = self._tags[key.system, key.pool].setdefault(name, [None] * len(self._items[key.pool]))
        row[key.at] = word

    def result(self) -> dict[str, dict[str, MetricValues]]:
        """Return everything written as a metric returns it."""
        found: dict[str, dict[str, MetricValues]] = defaultdict(dict)
        for (system, pool), values in self._values.items():
            found[system][pool] = MetricValues(values, tags=self._tags.get((system, pool), {}))
        return dict(found)
