"""A whole run in a second or two: manifest, training, export, with the kit's parts wherever a test gives none."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cldistill.catalogue import Catalogue
from cldistill.manifest.check import check_manifest
from cldistill.storage.files import CACHE_VARIABLE
from cldistill.testing.environment import catalogue_with
from cldistill.testing.pictures import write_general, write_pairs
from cldistill.training.metrics_log import FILE, read_metrics


@dataclass(frozen=True)
class FinishedRun:
    """The results of a run that a test helper started and that ended: its folder, metrics, collection and output."""

    folder: Path
    steps: int
    metrics: Sequence[Mapping[str, Any]]
    """The lines of ``metrics.jsonl``, one a generator step."""
    collection: Path | None
    text: str
    """The text that the run printed."""

    def losses(self, term: str) -> list[float]:
        """Return a term's loss of every update that it took part in."""
        updates = [update for line in self.metrics for update in line["updates"]]
        return [float(update["losses"][term]) for update in updates if term in update["losses"]]


def tiny_manifest(folder: Path, steps: int = 4, **parts: Any) -> dict[str, Any]:
    """Write small data under ``folder`` and return a manifest of the kit's parts; ``parts`` replaces top-level keys."""
    effects = [
        {
            "name": name, "prompt": f"{name} the picture", "teacher": {"use": "tiny-teacher"},
            "pairs": str(write_pairs(folder / "data" / name, seed=seed)),
        }
        for seed, name in enumerate(("invert", "soften"))
    ]  # fmt: skip
    general = {
        "images": str(folder / "data" / "general"),
        "instructions": str(write_general(folder / "data" / "general")),
    }
    manifest: dict[str, Any] = {
        "cldistill": 1,
        "name": "tiny",
        "base": {"use": "tiny-base"},
        "effects": effects,
        "general": general,
        "router": {"use": "tiny-router"},
        "prompts": {"use": "tiny-prompts"},
        "losses": [{"use": "tiny-flow"}],
        "slots": {"student": {"rank": 2, "lr": 1e-2}},
        "sampler": {"steps": 4},
        "targets": {"from": "teacher", "steps": 4},
        "train": {
            "generator_steps": steps,
            "batch_size": 2,
            "checkpoint_every": steps,
            "device": "cpu",
            "gradient_checkpointing": False,
        },
    }
    return manifest | parts


def run_manifest(
    folder: Path, catalogue: Catalogue | None = None, *, steps: int = 4, output: Path | None = None, **parts: Any
) -> FinishedRun:
    """Run `tiny_manifest` in ``folder`` to its end: check, train on the CPU, export.

    ``parts`` replaces top-level keys of the manifest (``losses=[{"use": "my-loss"}]``); ``catalogue`` comes from
    `catalogue_with` with the part under test in it.  A second call with the same folder resumes, or repeats, the first.
    """
    from cldistill.runner import execute

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(folder, steps, **parts), sort_keys=False), encoding="utf-8")
    output, text = output or folder / "run", io.StringIO()
    with _cache_in(folder / "cache"):
        checked = check_manifest(str(file), catalogue=catalogue or catalogue_with())
        outcome = execute(checked, output, Console(file=text, width=120), f"cldistill run {file} --output {output}")
    return FinishedRun(output, outcome.step, read_metrics(output / FILE), outcome.collection, text.getvalue())


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Keep a test's cache out of the user's."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE_VARIABLE]
        else:
            os.environ[CACHE_VARIABLE] = before
