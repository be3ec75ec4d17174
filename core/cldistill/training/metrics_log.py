"""``metrics.jsonl``: one line of valid JSON a generator step, cut back to the checkpoint when a run is resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import CheckpointError
from cldistill.markers import hookimpl
from cldistill.records import StepResult
from cldistill.storage.files import atomic_write_bytes, naming

if TYPE_CHECKING:
    from cldistill.training.run import Run

FILE = "metrics.jsonl"


class MetricsLog:
    """Observer that writes ``OUT/metrics.jsonl``."""

    @hookimpl
    def run_started(self, run: Run, start_step: int) -> None:
        """Drop the lines of steps that the resumed run will do again, and note in the manifest what has changed."""
        truncate(run.output / FILE, start_step)
        resolved = run.output / "manifest.resolved.yaml"
        if run.plugin_changes and resolved.exists():
            notes = "".join(f"#   {line}\n" for line in run.plugin_changes)
            atomic_write_bytes(resolved, b"# Changed since the run began:\n" + notes.encode() + resolved.read_bytes())

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Append the step's line in one write, so that a kill leaves at most one broken last line."""
        with naming(run.output / FILE), (run.output / FILE).open("ab") as file:
            file.write(line(result).encode())

    @hookimpl
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """Flush to the disk: the log must not be behind the checkpoint that a resume starts from."""
        log = run.output / FILE
        if log.exists():
            with log.open("ab") as file:
                os.fsync(file.fileno())


def line(result: StepResult) -> str:
    """Return one step as a line of JSON with its newline; a number that is not finite becomes ``null``."""
    rounded = replace(result, seconds=round(result.seconds, 4), peak_memory_mb=round(result.peak_memory_mb, 1))
    return json.dumps(_finite(asdict(rounded)), allow_nan=False, ensure_ascii=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log; lines that are not whole (a run may be writing, or was killed) are left out."""
    if not path.exists():
        return []
    parsed = (_parse(text) for text in path.read_bytes().split(b"\n"))
    return [record for record in parsed if record is not None]


def truncate(path: Path, step: int) -> None:
    """Keep only whole lines of steps up to and including ``step``; an untouched log is not rewritten.

    Raises `CheckpointError` where the log does not reach that step without a gap: it was damaged.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    old = path.read_bytes()
    parsed = ((text, _parse(text)) for text in old.split(b"\n"))
    kept = [(text, record["step"]) for text, record in parsed if record is not None and record["step"] <= step]
    if step and [number for _, number in kept] != list(range(kept[0][1] if kept else 0, step + 1)):
        raise CheckpointError(
            f"{path}: lacks steps before the checkpoint of step {step}, so it is damaged; restore it from a copy, or delete "
            "it to go on without the earlier lines"
        )
    new = b"".join(text + b"\n" for text, _ in kept)
    if new != old:
        atomic_write_bytes(path, new)


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
