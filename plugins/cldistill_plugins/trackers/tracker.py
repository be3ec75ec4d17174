"""Hands step results and sample grids to one of accelerate's trackers."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import OptionsError
from cldistill.markers import hookimpl
from cldistill.records import StepResult

if TYPE_CHECKING:
    from cldistill.training.run import Run

TENSORBOARD = "tensorboard"
_GRID = re.compile(r"step-(\d+)\.png")


class TrackerObserver:
    """Observer: one point a generator step; a slot's several updates of a step are averaged."""

    def __init__(self, name: str, project: str | None, settings: Mapping[str, Any], folder: Path | None) -> None:
        """Remember what to start: ``folder`` is where TensorBoard's events go, by default ``OUT/tensorboard``."""
        self._name = name
        self._project = project
        self._settings = dict(settings)
        self._folder = folder
        self._tracker: Any = None
        self._skipped = 0
        self._grids: set[Path] = set()

    @hookimpl
    def run_started(self, run: Run, start_step: int) -> None:
        """Start the tracker; in TensorBoard, points of steps that a resumed run does again are hidden.

        Raises:
            OptionsError: this version of accelerate does not know the tracker, or the tracker does not start.
        """
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        made = LOGGER_TYPE_TO_CLASS.get(self._name)
        if made is None:
            raise OptionsError(
                f"observer 'tracker': this accelerate knows no tracker {self._name!r}; upgrade accelerate"
            )
        where: tuple[Any, ...] = (self._project or run.name,)
        settings = dict(self._settings)
        if self._name == TENSORBOARD:
            folder = self._folder or run.output / TENSORBOARD
            where = (folder.name, folder.parent)
            settings["purge_step"] = start_step + 1 if start_step else None
        elif made.requires_logging_directory:
            where = (*where, run.output)
        try:
            self._tracker = made(*where, **settings)
            self._tracker.start()
        except Exception as error:  # somebody else's code: not logged in, no network, an option that it does not take
            raise OptionsError(f"observer: {self._name} does not start: {type(error).__name__}: {error}") from error
        self._grids = {path for path, step in _grids(run.output) if step <= start_step}

    @hookimpl
    def step_finished(self, run: Run, result: StepResult) -> None:
        """Hand over the step's numbers."""
        self._skipped += any(update.skipped for update in result.updates)
        self._tracker.log({**dict(scalars(result)), "run/skipped_steps": self._skipped}, step=result.step)
        self._add_grids(run)

    @hookimpl
    def checkpoint_saved(self, run: Run, step: int, path: Path) -> None:
        """Hand over what was drawn, so that what a checkpoint holds can be looked at."""
        self._add_grids(run)

    @hookimpl
    def run_finished(self, run: Run, step: int, stopped: bool) -> None:
        """End the tracker."""
        self._add_grids(run)
        self._tracker.finish()

    @hookimpl
    def run_failed(self, run: Run, error: BaseException) -> None:
        """End the tracker."""
        if self._tracker is not None:
            self._tracker.finish()

    def _add_grids(self, run: Run) -> None:
        """Hand over the sample grids that the run has drawn since the last time, where the tracker takes pictures."""
        import numpy as np
        from PIL import Image

        for path, step in _grids(run.output):
            if path in self._grids or not hasattr(self._tracker, "log_images"):
                continue
            self._grids.add(path)
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))[None]  # [1, H, W, 3]
            more = {"dataformats": "NHWC"} if self._name == TENSORBOARD else {}
            self._tracker.log_images({"samples": pixels}, step=step, **more)


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
