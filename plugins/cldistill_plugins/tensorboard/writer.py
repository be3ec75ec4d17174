"""Writes step results and sample grids as TensorBoard events."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.markers import hookimpl
from cldistill.records import StepResult

if TYPE_CHECKING:
    from cldistill.training.run import Run

_GRID = re.compile(r"step-(\d+)\.png")


class TensorboardObserver:
    """Observer: one point a generator step; a slot's several updates of a step are averaged."""

    def __init__(self, folder: Path | None, flush_secs: int) -> None:
        self._folder = folder
        self._flush_secs = flush_secs
        self._writer: Any = None
        self._skipped = 0
        self._grids: set[Path] = set()

    @hookimpl
    def run_started(self, run: Run, start_step: int) -> None:
        """Open the events; points of steps that a resumed run does again are hidden by TensorBoard's purge step."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder or run.output / "tensorboard"
        self._writer = SummaryWriter(
            str(folder), purge_step=start_step + 1 if start_step else None, flush_secs=self._flush_secs
        )
        self._grids = {path for path, step in _grids(run.output) if step <= start_step}

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Write the step's numbers."""
        self._skipped += any(update.skipped for update in result.updates)
        for tag, value in scalars(result):
            self._writer.add_scalar(tag, value, result.step)
        self._writer.add_scalar("run/skipped_steps", self._skipped, result.step)
        self._add_grids(run)

    @hookimpl
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """Flush, so that what a checkpoint holds can be looked at."""
        self._add_grids(run)
        self._writer.flush()

    @hookimpl
    def run_finished(self, run: Run, step: int, stopped: bool) -> None:
        """Close the events."""
        self._add_grids(run)
        self._writer.close()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """Close the events."""
        if self._writer is not None:
            self._writer.close()

    def _add_grids(self, run: Run) -> None:
        """Add the sample grids that the run has drawn since the last time."""
        import numpy as np
        from PIL import Image

        for path, step in _grids(run.output):
            if path not in self._grids:
                self._grids.add(path)
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
                self._writer.add_image("samples", pixels, step, dataformats="HWC")


def scalars(result: StepResult) -> Iterator[tuple[str, float]]:
    """Yield tag and value of everything finite in a step; a slot's updates are averaged.

    Numbers of an update that was skipped are left out: they would stretch the axis of every other step.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for update in result.updates:
        if update.skipped:
            continue
        for name, value in update.losses.items():
            values[f"loss/{update.slot}/{name}"].append(value)
        for name, value in update.metrics.items():
            values[f"metrics/{update.slot}/{name}"].append(value)
        values[f"grad_norm/{update.slot}"].append(update.grad_norm)
    for tag, numbers in values.items():
        finite = [number for number in numbers if math.isfinite(number)]
        if finite:
            yield tag, sum(finite) / len(finite)
    yield "run/seconds_per_step", result.seconds
    yield "run/forwards", float(result.forwards)
    yield "run/peak_memory_mb", result.peak_memory_mb


def _grids(output: Path) -> list[tuple[Path, int]]:
    """Return the sample grids of a run with their steps, in order."""
    found = ((path, _GRID.fullmatch(path.name)) for path in (output / "samples").glob("step-*.png"))
    return sorted((path, int(match[1])) for path, match in found if match)
