"""Where a metric writes its values, picture by picture and in any order."""

from __future__ import annotations

import math
from collections import defaultdict

from cldistill.protocols import MetricRequest
from cldistill.records import MetricValues

from .sights import Place


class Board:
    """Values and tags by place; what was never written is ``nan``, or no tag."""

    def __init__(self, request: MetricRequest) -> None:
        self._items = request.items
        self._values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
        self._tags: dict[tuple[str, str], dict[str, list[str | None]]] = defaultdict(dict)

    def put(self, place: Place, name: str, value: float | None) -> None:
        """Write one value; None is a value that could not be found."""
        row = self._values[place.system, place.pool].setdefault(name, [math.nan] * len(self._items[place.pool]))
        row[place.at] = math.nan if value is None else float(value)

    def tag(self, place: Place, name: str, word: str | None) -> None:
        """Write one word."""
        row = self._tags[place.system, place.pool].setdefault(name, [None] * len(self._items[place.pool]))
        row[place.at] = word

    def result(self) -> dict[str, dict[str, MetricValues]]:
        """Return everything written as a metric returns it."""
        found: dict[str, dict[str, MetricValues]] = defaultdict(dict)
        for (system, pool), values in self._values.items():
            found[system][pool] = MetricValues(values, tags=self._tags.get((system, pool), {}))
        return dict(found)
