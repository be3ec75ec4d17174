"""The differences between a run and what would go on with it, told key by key instead of by a hash."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cldistill.errors import CheckpointError, ManifestError
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.resolved import decisive, manifest_digest, plugin_digests, resolve, resolved_text
from cldistill.records import Change
from cldistill.training.checkpoint import Checkpoint, read
from cldistill.training.metrics_log import FILE as METRICS
from cldistill_plugins.resuming.stored import read_stored

MANIFEST = "manifest.resolved.yaml"
FOLDERS = ("checkpoints", "samples", "pictures")
"""Folders that a run makes in its own."""


def refuse_another(
    checked: CheckedManifest, folder: Path, *, wanted: bool = False, may_change: Collection[Change] = ()
) -> None:
    """Refuse, before anything is loaded, to go on with another run than this manifest's, or with none if one is ``wanted``.

    Raises:
        CheckpointError: each key with its old and its new value, and the way to start from the old weights instead; or the
            plugins or number of processes that were others, unless they ``may_change``; or a
            file where a run has a folder.
    """
    _must_be_of_a_run(folder)
    if not (folder / "checkpoints").is_dir():
        if wanted:
            raise CheckpointError(f"{folder} holds no checkpoint to resume; leave out --resume to start there")
        return
    found, resolved = _newest(folder / "checkpoints"), folder / MANIFEST
    if found is None:
        return
    digest, steps = manifest_digest(checked), checked.manifest.train.generator_steps
    other = found.meta.get("manifest") != digest and resolved.is_file()
    try:
        told = changes(checked, resolved.read_text(encoding="utf-8"), resolved) if other else []
    except (ManifestError, UnicodeDecodeError):
        told = []  # its text is damaged, or of another version: the hashes below tell as much as that there is a difference
    if told:
        listing = "".join(f"\n  {line}" for line in told)
        raise CheckpointError(
            f"{found.path} belongs to another manifest, or to other teachers or pictures:{listing}\nput the old values back, "
            f"choose another --output, there with `--set slots.student.checkpoint={found.path.absolute()}` to start from "
            "these weights, or --fresh to start over in this one; checkpoints, samples, observers and evaluation may change, "
            "and train.generator_steps where no learning rate falls to an end_lr by them"
        )
    ranks, plugins = int(os.environ.get("WORLD_SIZE", "1")), plugin_digests(checked)
    found.must_belong_to(digest, ranks, plugins=plugins, may_change=may_change)
    if found.step > steps:
        raise CheckpointError(f"{found.path} is beyond train.generator_steps: {steps}; set it to {found.step} or more")


def _must_be_of_a_run(folder: Path) -> None:
    """Refuse a file where a run has a folder, and the reverse: it would stop at a checkpoint, a grid of samples, or its end."""
    for path in (folder / name for name in FOLDERS):
        if path.exists() and not path.is_dir():
            raise CheckpointError(f"{path}: is a file, where a run has a folder; move it away")
    for path in (folder / METRICS, folder / MANIFEST):
        if path.is_dir():
            raise CheckpointError(f"{path}: is a folder, where a run has a file; move it away")


def _newest(root: Path) -> Checkpoint | None:
    for folder in sorted(root.glob("step-*"), reverse=True):
        with suppress(CheckpointError, OSError):
            return read(folder)
    return None


def changes(checked: CheckedManifest, then: str, file: Path) -> list[str]:
    """Return what decides a run and is not as in ``then``, the text of ``file``: ``slots.student.rank: 4 then, 8 now``.

    Raises:
        ManifestError: that text is damaged, or of another version.
    """
    old, new = (dict(_flat(decisive(data))) for data in (read_stored(then, file), resolve(checked)))
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    found = [f"{key}: {json.dumps(old.get(key))} then, {json.dumps(new.get(key))} now" for key in keys]
    inputs = [
        dict(re.findall(r"^#   (.+) ([0-9a-f]{64}|absent)$", text, re.M)) for text in (then, resolved_text(checked))
    ]
    files = [name for name in dict.fromkeys((*inputs[0], *inputs[1])) if inputs[0].get(name) != inputs[1].get(name)]
    return found + [f"{name}: its files are not those of then" for name in files]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if not inner:
        local = isinstance(value, str) and Path(value).is_absolute()  # data and runs may be moved
        yield path, Path(value).name if local else value
    for key, part in inner or ():
        yield from _flat(part, f"{path}.{key}" if path else str(key))
