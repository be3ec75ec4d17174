"""Measured values on disk under the hash of what they depend on: an evaluation that goes on measures nothing twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds that one process waits while another one writes."""


class ValueStore:
    """Plain JSON data by key (`cldistill.cache.content_key`), in one SQLite file that several processes may share."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.computed = 0
        """Values that had to be made, for the log and the tests."""
        with closing(self._connect()) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def find(self, key: str) -> Any | None:
        """Return what is kept under a key, or None."""
        with closing(self._connect()) as connection:
            row = connection.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep(self, key: str, value: Any) -> None:
        """Keep plain JSON data under a key; ``nan`` is allowed and comes back as such."""
        with closing(self._connect()) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (key, json.dumps(value)))

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what is kept under a key, making and keeping it where it is missing."""
        found = self.find(key)
        if found is None:
            found = json.loads(json.dumps(make()))  # the same types now as later: no tuples
            self.keep(key, found)
            self.computed += 1
        return found

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=PATIENCE)
