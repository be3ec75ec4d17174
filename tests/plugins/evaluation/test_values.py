"""Values on disk: made once, the same types at once and later, shared by threads."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cldistill_plugins.evaluation.values import ValueStore


def test_a_value_is_made_once_and_comes_back_alike(tmp_path: Path) -> None:
    store = ValueStore(tmp_path / "deep" / "values.sqlite")
    first = store.get("key", lambda: {"pair": (1, 2), "gap": math.nan})
    assert first["pair"] == [1, 2]
    assert math.isnan(first["gap"])
    again = ValueStore(store.path)
    assert again.get("key", lambda: 1 / 0)["pair"] == [1, 2]
    assert (store.computed, again.computed) == (1, 0)
    assert again.find("other") is None


def test_many_at_once(tmp_path: Path) -> None:
    store = ValueStore(tmp_path / "values.sqlite")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: store.keep({str(number): number, "last": number}), range(40)))
    assert store.find_all([*map(str, range(40)), "nobody"]) == {str(number): number for number in range(40)}
