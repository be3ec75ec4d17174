"""The benchmark of schedules at the least size: what each calls, counted; seconds are for whoever runs it."""

from __future__ import annotations

import runpy
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch

from cldistill.manifest.check import check_manifest
from cldistill_plugins.planning.calls import cycles

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmark_step.py"
CYCLES = 2


def figures(benchmark: dict[str, Any], name: str, folder: Path) -> list[dict[str, float]]:
    """Return what a worker answers, in this process."""
    ours, theirs = Pipe()
    for step in (*range(1, CYCLES + 1), None):
        ours.send(step)
    benchmark["work"](name, ["train.device=cpu"], folder, theirs)
    assert ours.recv() == "cpu"
    return [ours.recv() for _ in range(CYCLES)]


@pytest.mark.slow(8)
def test_the_released_schedule_makes_its_61_calls_and_ours_those_of_the_plan(tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    file = benchmark["write_manifest"](tmp_path, "least")
    released, ours, trajectory = (figures(benchmark, name, tmp_path) for name in benchmark["SYSTEMS"])
    assert [found["forwards"] for found in released] == [61, 61]  # 7 + 1 + 3 + 4 + 1, and 5 (7 + 1 + 1)
    planned = cycles(check_manifest(str(file), ["slots.critic.reuse_sample=true"], files=False))
    assert {(cycle.stream, cycle.forwards) for cycle in planned} == {("effect", 35.5), ("general", 30.5)}
    # k in 0..7, drawn for the student and for four of its critic's updates; between the two streams lie TS and TA
    assert all(13 <= found["forwards"] <= 53 for found in ours)
    assert all(one["forwards"] <= 8 + 3 + 4 + 1 + 5 for one in trajectory)
    assert all(found["seconds"] > 0 and found["peak_mb"] > 0 for found in (*released, *ours, *trajectory))


@pytest.mark.slow(2)
def test_the_released_update_moves_both_slots_and_leaves_the_teacher(tmp_path: Path) -> None:
    benchmark = runpy.run_path(str(SCRIPT))
    checked = check_manifest(str(benchmark["write_manifest"](tmp_path, "least")), ["train.device=cpu"])
    released = benchmark["Released"](checked, tmp_path / "out")
    before = {name: released.networks[name].slots.state(name) for name in ("student", "critic")}
    assert released.cycle(1) == 61
    for name, weights in before.items():
        assert any(not torch.equal(weights[key], now) for key, now in released.networks[name].slots.state(name).items())
    frozen = [p for network in released.networks.values() for p in network.base.backbone.parameters()]
    assert sum(p.requires_grad for p in frozen) == 2 * len(before["student"])
    assert len({id(network.base.backbone) for network in released.networks.values()}) == 3
