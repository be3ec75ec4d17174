"""Measured values on disk under the hash of what they depend on: an evaluation that goes on measures nothing twice."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cldistill.storage.files import naming, remove, sha256_bytes

PATIENCE = 60.0
"""Seconds that one process waits while another one writes."""


class ValueStore:
    """Plain JSON data by key (`cldistill.storage.tensors.content_key`), in one SQLite file.

    Processes and threads may share it.  Every value has a digest, and one that does not fit it is as good as missing; a
    file that is damaged as a whole is begun anew.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.computed = 0
        """Values that had to be made, for the log and the tests."""
        if not path.is_dir():
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
        logging.getLogger(__name__).warning("%s: is damaged; its values are measured again", path)
        for end in ("", "-wal", "-shm"):
            remove(path.with_name(path.name + end))
        self._open()

    def _open(self) -> None:
        """Make the table where it is missing, and look through all of the file."""
        with self._connection() as connection:
            # Commits then need no flush to the disk each; after a power cut the last ones are made again.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL, digest TEXT)"
            )
            columns = [row[1] for row in connection.execute("PRAGMA table_info(kept)")]
            if columns == ["key", "value"]:  # of an older version, whose values are taken as they are
                connection.execute("ALTER TABLE kept ADD COLUMN digest TEXT")
            if columns[:2] != ["key", "value"] or connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("malformed")

    def find(self, key: str) -> Any | None:
        """Return what is kept under a key, or None."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return key -> what is kept under it, for those keys that there are."""
        with self._connection() as connection:
            select = "SELECT value, digest FROM kept WHERE key = ?"
            rows = [(key, connection.execute(select, (key,)).fetchone()) for key in keys]
        return {
            key: json.loads(row[0]) for key, row in rows if row is not None and row[1] in (None, _digest(key, row[0]))
        }

    def keep(self, values: Mapping[str, Any]) -> None:
        """Keep plain JSON data by key; ``nan`` is allowed and comes back as such."""
        with self._connection() as connection:
            rows = [(key, text, _digest(key, text)) for key, text in ((k, json.dumps(v)) for k, v in values.items())]
            connection.executemany("INSERT OR REPLACE INTO kept (key, value, digest) VALUES (?, ?, ?)", rows)

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
        with (
            naming(self.path),
            _told(),
            closing(sqlite3.connect(self.path, timeout=PATIENCE)) as connection,
            connection,
        ):
            connection.text_factory = lambda data: data.decode(
                errors="replace"
            )  # a flipped bit is for the digest to find
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection


SYSTEM = {
    "SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS, "SQLITE_CANTOPEN": errno.EACCES,
    "SQLITE_IOERR": errno.EIO, "SQLITE_PERM": errno.EACCES,
}  # fmt: skip


@contextmanager
def _told() -> Iterator[None]:
    """Turn what SQLite says of a full disk or a place that cannot be written to into an `OSError`."""
    try:
        yield
    except sqlite3.Error as error:
        name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
        if name in SYSTEM:
            raise OSError(SYSTEM[name], os.strerror(SYSTEM[name])) from error
        raise


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file itself is at fault: another process that writes for a long time, say, is no damage."""
    return not isinstance(error, sqlite3.OperationalError)


def _digest(key: str, text: object) -> str:
    return sha256_bytes(f"{key} {text}".encode())
