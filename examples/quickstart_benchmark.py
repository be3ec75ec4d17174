"""The quickstart's longer run against TA-FM alone given the same time: does the full objective bring texture back?

    python examples/quickstart_benchmark.py OUT                      one after the other, on all cores
    python examples/quickstart_benchmark.py OUT --together STEPS     side by side, one thread each

Runs ``quickstart-long``, then ``quickstart-ta-fm`` with as many steps as fit into the training seconds that the first
one took (side by side: with STEPS, and the report says how long each trained), both resumable.  Compares them picture
by picture on the held-out pictures of the stochastic effects: ``|log(E(output) / E(truth))|`` of the energy above one
cycle in 8 pixels, with a paired bootstrap interval.
Writes ``OUT/benchmark.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cldistill_plugins.effectbench.api import SIX
from cldistill_plugins.evaluation.api import mean_interval, paired_difference

STOCHASTIC = tuple(name for name, effect in SIX.items() if effect.stochastic)
FULL, ALONE = "quickstart-long", "quickstart-ta-fm"


def command(recipe: str, out: Path, *settings: str) -> list[str]:
    """Return the command that runs (or goes on with) a recipe, as a user would type it."""
    words = [word for setting in settings for word in ("--set", setting)]
    return [sys.executable, "-m", "cldistill", "run", recipe, "--output", str(out), *words]


def alone_settings(steps: int) -> tuple[str, str]:
    """Return what gives ``quickstart-ta-fm`` that many steps."""
    return f"train.generator_steps={steps}", f"router.options.mixed_until={steps}"


def run_in_turn(full: Path, alone: Path) -> None:
    """Run the full objective, then TA-FM alone for as long."""
    subprocess.run(command(FULL, full), check=True)
    begun = next(index for index, record in enumerate(steps_of(full)) if len(record["updates"]) > 1)
    subprocess.run(command(ALONE, alone, *alone_settings(equal_time_steps(full, begun))), check=True)


def run_together(full: Path, alone: Path, steps: int) -> None:
    """Run both at once, one thread each."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = command(FULL, full), command(ALONE, alone, *alone_settings(steps))
    running = [subprocess.Popen(words, env=environment) for words in commands]
    if any([process.wait() for process in running]):
        raise SystemExit("one of the runs failed; the same command goes on")


def steps_of(out: Path) -> list[dict[str, Any]]:
    """Read a run's log."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def equal_time_steps(full: Path, mixed_until: int) -> int:
    """Return how many TA-FM steps fit into the training time of the full run, by the pace of its own TA-FM phase."""
    records = steps_of(full)
    pace = median(record["seconds"] for record in records[:mixed_until])
    return mixed_until + round(sum(record["seconds"] for record in records[mixed_until:]) / pace)


def values(out: Path, system: str, metric: str, effects: tuple[str, ...]) -> NDArray[np.float64]:
    """Return a metric's values of a system, ``[pictures, effects]``."""
    found = json.loads((out / "report.json").read_text())["values"][system]
    return np.array([found[effect][metric] for effect in effects], dtype=np.float64).T


def compare(full: Path, alone: Path) -> dict[str, Any]:
    """Return the figures of the comparison."""
    result: dict[str, Any] = {}
    for name, effects in {"stochastic": STOCHASTIC, **{e: (e,) for e in STOCHASTIC}}.items():
        ours, theirs = (values(out, "student@8", "hf_distance", effects) for out in (full, alone))
        result[name] = {
            "full": vars_of(mean_interval(ours)), "ta_fm_alone": vars_of(mean_interval(theirs)),
            "gain": vars_of(paired_difference(theirs, ours)),
        }  # fmt: skip
    return result


def means(report: dict[str, Any]) -> dict[str, Any]:
    """Return the mean of every metric of every system."""
    return {s: {name: found["mean"] for name, found in own.items()} for s, own in report["summary"].items()}


def vars_of(interval: Any) -> dict[str, float | None]:
    """Return an interval as plain numbers; None where there is none."""
    found = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in found.items()}


def main() -> None:
    """Run both, compare, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--together", type=int, metavar="STEPS", help="steps of TA-FM alone, run beside the other")
    given = parser.parse_args()
    full, alone = given.out / "full", given.out / "ta-fm-alone"
    if given.together is None:
        run_in_turn(full, alone)
    else:
        run_together(full, alone, given.together)
    reports = {path.name: json.loads((path / "report.json").read_text()) for path in (full, alone)}
    together = "" if given.together is None else f" --together {given.together}"
    result = {
        "command": "python examples/quickstart_benchmark.py OUT" + together,
        "versions": {name: version(name) for name in ("cldistill", "torch", "diffusers")},
        "machine": platform.machine(),
        "hf_distance": compare(full, alone),
        "mean": {run: means(report) for run, report in reports.items()},
        "run": {name: report["run"] for name, report in reports.items()},
    }
    (given.out / "benchmark.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["hf_distance"], indent=2))


if __name__ == "__main__":
    main()
