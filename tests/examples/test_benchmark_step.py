"""The benchmark of schedules at the least size: what each calls, counted; seconds are for whoever runs it."""

from __future__ import annotations

import runpy
import traceback
from collections import Counter
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

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
    # A process that did much before, as this one, may have the memory already.
    assert all(found["seconds"] > 0 and found["peak_mb"] >= 0 for found in (*released, *ours, *trajectory))


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


READS = ("item", "tolist", "__float__", "__bool__", "__int__", "__index__", "cpu", "numpy", "nonzero")
"""Methods of a tensor by which Python waits for the device that it lies on."""


class Reads(TorchFunctionMode):
    """Counts the reads of tensors by the file of ours that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (name := getattr(func, "__name__", "")) in READS:
            files = [Path(frame.filename) for frame in traceback.extract_stack()]
            ours = [file for file in files if "cldistill" in str(file) and "site-packages" not in str(file)]
            if "torch/optim" not in str(files[-2]):  # AdamW's own count lies on the device where it is fused, on CUDA
                self.found[(ours[-1].name, name)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow(4)
def test_a_cycle_waits_for_the_device_once_a_loss_and_once_an_update(tmp_path: Path) -> None:
    """And once for a DMD term's three metrics; what is read besides lies in the host's memory on every device."""
    benchmark = runpy.run_path(str(SCRIPT))
    settings = ["train.device=cpu", "router.options.p_switch=1", "slots.critic.reuse_sample=true"]
    checked = check_manifest(str(benchmark["write_manifest"](tmp_path, "least")), settings)
    ours = benchmark["Ours"](checked, tmp_path / "out")
    ours.cycle(0)
    with Reads() as reads:
        ours.cycle(1)
    losses, updates, batches = 3 + 5, 1 + 5, 1 + 4
    assert reads.found.pop(("step.py", "__float__")) == losses + updates
    assert reads.found.pop(("score.py", "tolist")) == 2
    assert reads.found.pop(("ta_fm.py", "__float__")) == 1
    assert reads.found.pop(("base.py", "tolist")) == batches  # the grids of a batch's pictures: not one for each call
    prompts = 3 * batches
    in_the_host = {("base.py", "__bool__"): prompts, ("ts_dmd.py", "__bool__"): 1, ("step.py", "tolist"): 1}
    assert reads.found == in_the_host
