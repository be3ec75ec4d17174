"""Values on disk: made once, the same types at once and later, shared by threads."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cldistill.testing.pictures import picture
from cldistill_plugins.evaluation.picture_store import PictureStore
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


def sql(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


SPOILT: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"\xff" * 5000),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.rename(path.with_name("away")).parent.joinpath(path.name).mkdir(),
    "no JSON": lambda path: sql(path, "UPDATE kept SET value = 'x'"),
    "another shape": lambda path: sql(path, "UPDATE kept SET value = '5'"),
    "another table": lambda path: sql(path, "DROP TABLE kept", "CREATE TABLE kept (a)"),
    "exchanged": lambda path: sql(path, "UPDATE kept SET value = (SELECT value FROM kept WHERE key = 'other'), digest = "
                                  "(SELECT digest FROM kept WHERE key = 'other')"),
    "no text": lambda path: sql(path, "UPDATE kept SET value = CAST(x'ff22' AS TEXT)"),
    "stale journal": lambda path: path.with_name(path.name + "-wal").write_bytes(b"x" * 5000),
}  # fmt: skip


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_store_never_answers_with_another_value(tmp_path: Path, how: str) -> None:
    store = ValueStore(tmp_path / "values.sqlite")
    store.keep({"key": {"score": 0.25}, "other": [1]} | {str(number): "x" * 500 for number in range(50)})
    SPOILT[how](store.path)
    again = ValueStore(store.path)
    assert again.get("key", lambda: {"score": 0.25}) == {"score": 0.25}
    assert ValueStore(store.path).find("key") == {"score": 0.25}


def test_values_of_an_older_version_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "values.sqlite"
    sql(path, "CREATE TABLE kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)", "INSERT INTO kept VALUES ('key', '7')")
    assert ValueStore(path).find("key") == 7


def test_a_damaged_picture_is_made_again(tmp_path: Path) -> None:
    store = PictureStore(tmp_path)
    for raw in (b"", b"RIFF", None):
        store.write("key", picture(1))
        assert store.has("key")
        data = bytearray(store.path("key").read_bytes())
        data[-3] ^= 4
        store.path("key").write_bytes(data if raw is None else raw)
        assert not store.has("key")
    store.write("key", picture(1))
    shutil.rmtree(tmp_path)
    assert not store.has("key")
