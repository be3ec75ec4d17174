"""Shares of the teachers and targets: each is made once, a killed one goes on, and a run finds all and prepares nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cldistill.assemble import assemble, load_base, start
from cldistill.errors import Stopped
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import CheckedManifest
from cldistill.progress.signals import never
from cldistill.records import GENERAL
from cldistill.testing.environment import plugin_environment
from cldistill.testing.pictures import write_pairs
from cldistill.testing.runs import tiny_manifest
from cldistill.training.run import Run
from cldistill_plugins.sharding.api import WHOLE, Shard
from cldistill_plugins.teachers.workers import Task, TrainingOrder, tasks_of, variables, visible_devices, worker

torch.set_num_threads(1)
NAMES = ("invert", "soften", "sharpen")


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Path]:
    """A manifest of the kit's parts, three effects whose teachers are trained, and checkpointing as by default."""
    teacher = {"use": "from-pairs", "options": {"steps": 2, "rank": 2}}
    effects = [
        {"name": n, "prompt": f"{n} it", "teacher": teacher, "pairs": str(write_pairs(tmp_path / n, 3, seed=seed))}
        for seed, n in enumerate(NAMES)
    ]
    train = {"generator_steps": 4, "device": "cpu"}
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(tiny_manifest(tmp_path, effects=effects, train=train)))
    with plugin_environment({}):
        yield path


def work(manifest: Path, cache: Path, shard: Shard, stop: Callable[[], bool] = never) -> None:
    """Do a share as one process of two would, and the other one's after it."""
    do = worker(TrainingOrder(str(manifest), (), cache, 1, targets=True), lambda *told: None, stop)
    for task in tasks_of(check_manifest(str(manifest)), shard, targets=True, parts=2):
        do(task)


def times(cache: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in cache.rglob("*.safetensors") if path.is_file()}


def prepared(manifest: Path, cache: Path) -> Run:
    return assemble(check_manifest(str(manifest)), cache.parent / "run", cache=cache)


def target(run: Run, pool: str, index: int) -> torch.Tensor:
    make = run.dataset.pools[pool][index].target
    assert make is not None
    return make()


@pytest.mark.slow(3)
def test_shares_prepare_all_of_a_run_once_and_one_that_was_killed_goes_on(manifest: Path, tmp_path: Path) -> None:
    cache, asked = tmp_path / "shared", 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 8

    work(manifest, cache, Shard(2, 2))
    with pytest.raises(Stopped):
        work(manifest, cache, Shard(1, 2), stop)
    begun = times(cache)
    assert len(list(cache.glob("pairs/*/teacher.safetensors"))) == 2
    work(manifest, cache, Shard(1, 2))
    made = times(cache)
    assert begun.items() <= made.items()
    assert len(list(cache.glob("pairs/*/teacher.safetensors"))) == len(NAMES)
    run = prepared(manifest, cache)
    assert made.items() <= times(cache).items()
    whole = prepared(manifest, tmp_path / "alone")
    assert len(times(tmp_path / "alone")) == len(times(cache)) <= len(made) + 2  # a run's own probe: source and prompt
    for pool in NAMES:  # a whole pool is one process's work: the targets of a run that made them by itself, to the bit
        assert all(torch.equal(target(run, pool, index), target(whole, pool, index)) for index in range(3))
    for index in range(len(run.dataset.pools[GENERAL])):
        assert torch.allclose(target(run, GENERAL, index), target(whole, GENERAL, index), atol=1e-5)


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_whoever_loads_the_base_to_train_a_teacher_checkpoints_as_the_run_does(
    manifest: Path, tmp_path: Path, wanted: str
) -> None:
    """`cldistill teachers` and `eval`, which train nothing else."""
    checked = check_manifest(str(manifest), [f"train.gradient_checkpointing={wanted}"])
    preparation = load_base(checked, *start(checked, tmp_path / "out", tmp_path / "cache"))
    base: Any = preparation.base
    assert base.network.checkpoint is None
    assert preparation.slots.names == ()
    assert (base.network.checkpoint is not None) == (wanted == "true")


def test_shares_name_every_task_once(manifest: Path) -> None:
    checked = check_manifest(str(manifest))
    found = [task for number in (1, 2, 3, 4) for task in tasks_of(checked, Shard(number, 4), targets=True, parts=2)]
    assert sorted(task.pool for task in found if task.pool != GENERAL) == sorted(NAMES)
    assert [task.share for task in found if task.pool == GENERAL] == [Shard(number, 8) for number in range(1, 9)]
    assert tasks_of(checked, WHOLE, targets=False) == [Task(name) for name in NAMES]
    assert [str(task) for task in tasks_of(checked, Shard(2, 2), targets=True)] == ["soften", "general 2/2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [(None, 2, ("0", "1")), ("2,5", 2, ("2", "5")), ("GPU-a", 1, ("GPU-a",)), ("", 0, ()), (None, 0, ())],
)
def test_processes_are_counted_by_gpus(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    def seen(*overrides: str, **more: str) -> tuple[str, ...]:
        checked: CheckedManifest = check_manifest(str(manifest), overrides)
        return visible_devices(checked, environment | more)

    assert seen("train.device=auto") == found
    order = TrainingOrder(str(manifest), (), manifest.parent, 1, devices=found)
    told = [variables(order, index).get("CUDA_VISIBLE_DEVICES") for index in range(2 * count)]
    assert told == [*found, *found]
    assert seen() == ()  # its train.device is the CPU
    assert seen("train.device=auto", ACCELERATE_USE_CPU="true") == ()
