"""Measured values on disk under the hash of what they depend on: an evaluation that goes on measures nothing twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds that one process waits while another one writes."""


class ValueStore:
    """Plain JSON data by key (`cldistill.storage.tensors.content_key`), in one SQLite file.

    Processes and threads may share it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.computed = 0
        """Values that had to be made, for the log and the tests."""
        with self._connection() as connection:
            # Commits then need no flush to the disk each; after a power cut the last ones are made again.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL)")

    def find(self, key: str) -> Any | None:
        """Return what is kept under a key, or None."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return key -> what is kept under it, for those keys that there are."""
        with self._connection() as connection:
            rows = [
                (key, connection.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()) for key in keys
            ]
        return {key: json.loads(row[0]) for key, row in rows if row is not None}

    def keep(self, values: Mapping[str, Any]) -> None:
        """Keep plain JSON data by key; ``nan`` is allowed and comes back as such."""
        with self._connection() as connection:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?)", rows)

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what is kept under a key, making and keeping it where it is missing."""
        found = self.find(key)
        if found is None:
            found = json.loads(json.dumps(make()))  # the same types now as later: no tuples
            self.keep({key: found})
            self.computed += 1
        return found

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open, commit or roll back, and close: a connection of its own in every thread."""
        with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as connection, connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
