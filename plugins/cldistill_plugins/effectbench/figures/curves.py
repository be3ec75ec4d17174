"""Figure 9: training curves of several runs, from their ``metrics.jsonl``, and quality over generator steps.

Charts have the shape of ``curves`` in an evaluation's ``report.json``: title, axes, and lines of ``[x, y]`` points.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cldistill.errors import DataError
from cldistill.storage.untrusted import parse_json
from cldistill.training.metrics_log import FILE, read_metrics

WINDOWS = 30
"""Points that a line has at most: each is the mean of a window of steps."""
VALUES = 8
"""Values that a window has on average at least: one loss is mostly about the noise level that was drawn."""
STEPS = "generator steps"
GRADIENT = "/gradient"
"""End of the names under which the distribution-matching losses log the root mean square of their gradient."""

Points = list[list[float]]
Chart = dict[str, Any]


def training_charts(runs: Mapping[str, Path]) -> list[Chart]:
    """Return a chart for each loss term, gradient, slot's gradient norm, and the seconds of a step; a line for each run.

    Raises:
        DataError: a run has no log.
    """
    lines: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for name, folder in runs.items():
        records = read_metrics(folder / FILE)
        if not records:
            raise DataError(f"{folder}: {FILE} is missing or empty: give the --output of a `cldistill run`")
        for chart, values in series(records).items():
            lines[chart].append({"name": name, "points": windowed(values, min(WINDOWS, len(values) // VALUES))})
    charts = [{"title": title, "x": STEPS, "y": unit, "lines": found} for (title, unit), found in lines.items()]
    return sorted(charts, key=lambda chart: _order(str(chart["title"])))


def quality_charts(files: Sequence[Path]) -> list[Chart]:
    """Return a chart for each metric of evaluations of intermediate checkpoints, a line for each file.

    A file holds ``{"name": the run's, "metric": its title, "points": [[generator steps, value], ...]}``.

    Raises:
        DataError: a file is not of that shape.
    """
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in files:
        found = _read(file)
        lines[found["metric"]].append({"name": found["name"], "points": sorted(found["points"])})
    return [{"title": metric, "x": STEPS, "y": metric, "lines": found} for metric, found in lines.items()]


def series(records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return ``(title, unit) -> (step, value)``: of several updates of a slot in one step the mean.

    Losses and gradients exist only in the steps that drew their stream; what was not finite is left out.
    """
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for record in records:
        step = int(record["step"])
        for chart, values in _of_step(record).items():
            found[chart].append((step, math.fsum(values) / len(values)))
    return dict(found)


def _of_step(record: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for update in record["updates"]:
        for term, loss in update["losses"].items():
            found[f"loss {term}", "loss"].append(loss)
        for name, value in update["metrics"].items():
            if name.endswith(GRADIENT):
                found[f"gradient of {name.removesuffix(GRADIENT)}", "root mean square of g"].append(value)
        found[f"gradient norm, {update['slot']}", "norm before clipping"].append(update["grad_norm"])
    found["time", "seconds a generator step"].append(record["seconds"])
    known = {chart: [value for value in values if value is not None] for chart, values in found.items()}
    return {chart: values for chart, values in known.items() if values}


def windowed(values: Sequence[tuple[int, float]], number: int) -> Points:
    """Average ``(step, value)``, in the order of steps, over ``number`` equal windows of steps; x is the mean step.

    They reach from the first step with a value to the last: a loss may come in late.  One without a value has no point.
    """
    first, span = values[0][0], values[-1][0] - values[0][0] + 1
    windows: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for step, value in values:
        windows[(step - first) * max(1, number) // span].append((step, value))
    return [
        [math.fsum(step for step, _ in part) / len(part), float(f"{math.fsum(v for _, v in part) / len(part):.6g}")]
        for _, part in sorted(windows.items())
    ]


def _order(title: str) -> tuple[int, str]:
    kinds = ("loss", "gradient of", "gradient norm", "time")
    return next(index for index, kind in enumerate(kinds) if title.startswith(kind)), title


def _read(file: Path) -> dict[str, Any]:
    try:
        found = parse_json(file.read_bytes())
        texts = [found[key] for key in ("name", "metric")]
        points = [[float(step), float(value)] for step, value in found["points"]]
    except OSError as error:
        raise DataError(f"--evaluation {file}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, OverflowError, TypeError) as error:
        raise DataError(_shape(file)) from error
    if not all(isinstance(text, str) for text in texts) or not points:
        raise DataError(_shape(file))
    return {"name": texts[0], "metric": texts[1], "points": points}


def _shape(file: Path) -> str:
    return f'--evaluation {file}: must be {{"name": "...", "metric": "...", "points": [[step, value], ...]}}'
