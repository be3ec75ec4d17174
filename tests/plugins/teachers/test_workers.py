"""`cldistill teachers`: several processes fill one cache, a second call finds everything, failures are told by name."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cldistill.errors import CldistillError
from cldistill.testing.environment import plugin_environment
from cldistill.testing.pictures import write_pairs
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.teachers import workers
from cldistill_plugins.teachers.command import _threads

NAMES = ("invert", "soften")


def manifest(folder: Path, **options: object) -> Path:
    """Write a manifest of the kit's parts with two effects whose teachers are trained."""
    teacher = {"use": "from-pairs", "options": {"steps": 2, "rank": 2, "batch_size": 1, **options}}
    effects = [
        {"name": n, "prompt": n, "teacher": teacher, "pairs": str(write_pairs(folder / n, 2, seed=seed))}
        for seed, n in enumerate(NAMES)
    ]
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(tiny_manifest(folder, effects=effects)))
    return path


class Teachers(Protocol):
    def __call__(self, path: Path, *more: str | Path, processes: int) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def teachers(tmp_path: Path, interpreter: Any) -> Iterator[Teachers]:
    """Run ``cldistill teachers MANIFEST``, which starts an interpreter for each of its processes."""

    def run(path: Path, *more: str | Path, processes: int) -> subprocess.CompletedProcess[str]:
        command = ("-m", "cldistill", "teachers", path, "--processes", str(processes), *more)
        done: subprocess.CompletedProcess[str] = interpreter.run(*command, environment=environment)
        return done

    with plugin_environment({}) as environment:
        environment["CLDISTILL_CACHE"] = str(tmp_path / "cache")
        yield run


def finished(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (folder / "cache/pairs").glob("*/teacher.safetensors")}


def same(first: Path, second: Path) -> bool:
    tensors, others = load_file(first), load_file(second)
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


@pytest.mark.slow(17)
def test_two_processes_train_every_teacher_once_and_a_second_call_trains_none(
    tmp_path: Path, teachers: Teachers
) -> None:
    path = manifest(tmp_path)
    first = teachers(path, processes=2)
    assert first.returncode == 0, first.stderr
    made = finished(tmp_path)
    assert len(made) == 2
    assert "2 teachers are in the cache" in first.stdout
    assert teachers(path, "--export", tmp_path / "files", processes=1).returncode == 0
    assert finished(tmp_path) == made
    for name in NAMES:
        assert any(same(tmp_path / "files" / f"{name}.safetensors", Path(path)) for path in made)


@pytest.mark.slow(6)
def test_a_teacher_that_diverges_is_named_and_nothing_of_it_is_kept(tmp_path: Path, teachers: Teachers) -> None:
    done = teachers(manifest(tmp_path, lr=1e30, steps=12), processes=1)
    assert done.returncode == 2
    assert all(f"teacher of {name}: " in done.stderr for name in NAMES)  # one process, and both were tried
    assert "lr" in done.stderr
    assert not finished(tmp_path)


def test_a_worker_whose_parent_is_gone_before_it_began_takes_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[signal.Signals] = []
    monkeypatch.setattr(workers, "leave_with_parent", bound.append)  # this process is to stay
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(is_alive=lambda: False))
    tasks: queue.Queue[workers.Task] = queue.Queue()
    tasks.put(workers.Task("mosaic"))
    workers._work(0, workers.TrainingOrder("m.yaml", (), Path("cache"), 1), tasks, queue.Queue())
    assert tasks.qsize() == 1 and bound == [signal.SIGTERM]


@pytest.mark.parametrize(("error", "begun"), [(CldistillError("diverged"), 3), (OSError("no space"), 2)])
def test_one_teacher_that_fails_stops_no_other_and_a_full_disk_does(
    monkeypatch: pytest.MonkeyPatch, error: Exception, begun: int
) -> None:
    def fail(task: workers.Task) -> None:
        seen.append(task.pool)
        if task.pool == "second":
            raise error

    seen: list[str] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(workers, "leave_with_parent", lambda number: None)
    monkeypatch.setattr(workers, "worker", lambda order, tell, stop: fail)
    tasks, progress = queue.Queue[workers.Task](), queue.Queue[workers.WorkerProgress]()
    for name in ("first", "second", "third"):
        tasks.put(workers.Task(name))
    workers._work(0, workers.TrainingOrder("m.yaml", (), Path("cache"), torch.get_num_threads()), tasks, progress)
    assert seen == ["first", "second", "third"][:begun]
    told = {item.effect: item.error or item.finished for item in progress.queue}
    assert told == dict([("first", True), ("second", str(error)), ("third", True)][:begun])


@pytest.mark.parametrize(
    ("said", "share", "threads"), [("1", 4, 1), ("8", 2, 2), ("", 3, 3), ("many", 3, 3), ("0", 3, 1), ("2", 0, 1)]
)
def test_a_worker_takes_its_share_of_the_cores_and_no_more_than_is_allowed(
    said: str, share: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert _threads(share) == threads


def test_failures_are_told_with_what_was_not_begun() -> None:
    assert workers.failures({}, [], []) == ""
    assert (
        workers.failures({"a": "diverged", "b": "diverged"}, [], []) == "teacher of a: diverged\nteacher of b: diverged"
    )
    told = workers.failures({"": "no such model"}, [-9], ["a", "b"])
    assert told.splitlines() == [
        "no such model",
        "a process that trained teachers ended with status -9",
        "not made: a, b; the same command goes on with them",
    ]
