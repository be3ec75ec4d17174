"""metrics.jsonl: valid JSON whatever the losses do, and cut back on resume."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from cldistill.errors import CheckpointError
from cldistill.hookspecs import RunHooks
from cldistill.markers import PROJECT
from cldistill.records import StepResult, UpdateResult
from cldistill.training.metrics_log import FILE, MetricsLog, line, read_metrics, truncate
from cldistill.training.observers import Observers


def result(step: int, loss: float = 0.5) -> StepResult:
    student = UpdateResult("student", 0, "effect", ("manga",), {"ta-fm": loss}, {"ta-fm/sigma": 0.25}, loss)
    critic = UpdateResult("critic", 0, "general", ("general",), {"fake-score": 2}, {}, 1.5, skipped=True)
    return StepResult(step, (student, critic), 1.23456, 35, 1203.456)


def run_in(folder: Path) -> Any:
    return SimpleNamespace(name="demo", output=folder, total_steps=9, plugin_changes=())


def test_a_line_holds_everything(tmp_path: Path) -> None:
    run, log = run_in(tmp_path / "out"), MetricsLog()
    log.run_started(run, 0)
    log.step_finished(run, result(1))
    assert read_metrics(run.output / FILE) == [
        {
            "step": 1,
            "updates": [
                {
                    "slot": "student",
                    "update": 0,
                    "stream": "effect",
                    "pools": ["manga"],
                    "losses": {"ta-fm": 0.5},
                    "metrics": {"ta-fm/sigma": 0.25},
                    "grad_norm": 0.5,
                    "skipped": False,
                },
                {
                    "slot": "critic",
                    "update": 0,
                    "stream": "general",
                    "pools": ["general"],
                    "losses": {"fake-score": 2.0},
                    "metrics": {},
                    "grad_norm": 1.5,
                    "skipped": True,
                },
            ],
            "seconds": 1.2346,
            "forwards": 35,
            "peak_memory_mb": 1203.5,
        }
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_values_are_null(tmp_path: Path, value: float) -> None:
    run, log = run_in(tmp_path), MetricsLog()
    log.step_finished(run, result(1, value))
    text = (tmp_path / FILE).read_text()

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    update = json.loads(text, parse_constant=refuse)["updates"][0]
    assert update["losses"]["ta-fm"] is None and update["grad_norm"] is None


def test_resume_drops_later_steps_and_a_broken_last_line(tmp_path: Path) -> None:
    run, log = run_in(tmp_path), MetricsLog()
    for step in range(1, 6):
        log.step_finished(run, result(step))
    path = tmp_path / FILE
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + b'{"step": 3, "upda')
    log.run_started(run, 3)
    assert path.read_bytes() == b"".join(whole[:3])
    log.step_finished(run, result(4))
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3, 4]


def test_a_last_line_without_its_newline_gets_it_back(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text('{"step": 1}\n{"step": 2}')
    truncate(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_fresh_run_starts_an_empty_log(tmp_path: Path) -> None:
    run, log = run_in(tmp_path), MetricsLog()
    log.step_finished(run, result(1))
    log.run_started(run, 0)
    assert read_metrics(tmp_path / FILE) == []


def test_a_damaged_log_ends_the_run_and_is_not_switched_off_like_a_tracker(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(line(result(4)), encoding="utf-8")
    run = SimpleNamespace(**vars(run_in(tmp_path)), is_main=True, observers=[MetricsLog()], alone=nullcontext)
    with pytest.raises(CheckpointError, match="lacks steps before the checkpoint of step 5"):
        Observers(run).tell("run_started", start_step=5)  # type: ignore[arg-type]


def test_it_is_an_observer(tmp_path: Path) -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RunHooks)
    manager.register(MetricsLog())
    run = run_in(tmp_path)
    manager.hook.run_started(run=run, start_step=0)
    manager.hook.step_finished(run=run, result=result(1))
    manager.hook.checkpoint_saved(run=run, step=1, path=tmp_path)
    assert len(read_metrics(tmp_path / FILE)) == 1


@pytest.mark.parametrize(
    "spoilt", [b"", b"\xff\xfe garbage", b"[" * 200_000, line(result(1)).encode(), line(result(4)).encode()]
)
def test_a_log_that_lacks_steps_of_the_checkpoint_is_refused(tmp_path: Path, spoilt: bytes) -> None:
    (tmp_path / FILE).write_bytes(spoilt)
    with pytest.raises(CheckpointError, match="delete it to go on"):
        truncate(tmp_path / FILE, 3)
    (tmp_path / FILE).unlink()
    truncate(tmp_path / FILE, 3)
    with (tmp_path / FILE).open("w") as file:
        file.writelines(line(result(step)) for step in (4, 5))
    truncate(tmp_path / FILE, 5)  # a log that was deleted once has no gap after that
