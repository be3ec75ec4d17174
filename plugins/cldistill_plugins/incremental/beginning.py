"""The search for a collection's first run: the one on mixed batches that its own went on from (torch-free).

A growing run's first phase is taken over from there where a collection was trained in two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.errors import CldistillError, CollectionError
from cldistill.records import STUDENT
from cldistill_plugins.incremental.folder import MANIFEST, read_folder, sound_manifest
from cldistill_plugins.incremental.growing_manifest import begins_mixed


@dataclass(frozen=True)
class Beginning:
    """The result of the search for a collection's first run, made by `find_beginning` or `given_beginning`."""

    manifest: dict[str, Any] | None = None
    """Of the last run on mixed batches before the collection's own; None where there was none, or it is gone."""
    lost: str | None = None
    """The collection or checkpoint at which the search ended because it is not here."""


def given_beginning(path: Path) -> Beginning:
    """Return the beginning that ``--begun-by`` names.

    Raises:
        CollectionError: it is no folder of a collection, or its run was not on mixed batches.
    """
    read_folder(path)
    found = sound_manifest(path)
    if not begins_mixed(found):
        raise CollectionError(
            f"--begun-by {path}: its run {found['name']!r} was not on mixed batches, so it says nothing about a first phase; "
            "name the collection with which the training began"
        )
    return Beginning(found)


def find_beginning(run: Mapping[str, Any]) -> Beginning:
    """Follow a run's student to what it went on from, and that run's in turn, until one was on mixed batches."""
    seen: set[str] = set()
    while not begins_mixed(run):
        path, folders = _went_on(run)
        if path is None or path in seen:
            return Beginning()
        seen.add(path)
        there = [folder for folder in folders if folder.is_absolute() and (folder / MANIFEST).is_file()]
        if not there:
            return Beginning(lost=None if folders and Path(path).is_absolute() and Path(path).exists() else path)
        try:
            run = sound_manifest(there[0])
        except (CldistillError, OSError):
            return Beginning(lost=path)
    return Beginning(dict(run)) if seen else Beginning()


def _went_on(run: Mapping[str, Any]) -> tuple[str | None, list[Path]]:
    """Return what a run's student began as, and the folders that may hold the manifest of the run that made it."""
    student = run["slots"].get(STUDENT) or {}
    checkpoint, init = student.get("checkpoint"), student.get("init")
    if checkpoint is not None:  # which goes before `init`
        return str(checkpoint), [Path(str(checkpoint)).parent.parent]
    if init is None:
        return None, []
    path = Path(str(init))
    return str(init), [
        *([path.parent] if path.name == "collection" else []),
        path,
        *([path.parent] if path.suffix else []),
    ]
