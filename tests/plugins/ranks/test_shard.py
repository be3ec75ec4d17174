"""A base that two gloo ranks share out trains as the whole base does, on one rank or two, through a kill and in the end."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from cldistill.adapters.inject import linear_shapes
from cldistill.errors import CheckpointError, LaunchError
from cldistill.manifest.check import check_manifest
from cldistill.records import Change
from cldistill.testing.adapters import random_adapter
from cldistill.testing.contexts import tiny_run, update_context
from cldistill.testing.tiny_base import TinyBase
from cldistill.training import checkpoint
from cldistill.training.run import Run
from cldistill_plugins.ranks.launchers import refuse_sharding
from cldistill_plugins.ranks.shard import shard
from cldistill_plugins.resuming.another import refuse_another

torch.set_num_threads(1)
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SCRIPT = """
import os
import sys
from pathlib import Path

import torch
from rich.console import Console

from cldistill import runner
from cldistill.manifest.check import check_manifest
from cldistill.training import train as loop
from cldistill_plugins.ranks import shard as sharding

torch.set_num_threads(1)
manifest, output, dies = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
run_step, sizes = loop.run_step, output.with_name(output.name + f".{os.environ.get('RANK', '0')}")

def watched(run, optimizers, step):
    if step == dies:
        os._exit(9)  # as by SIGKILL, between two checkpoints
    if step == 0:
        held = sum(p.to_local().nbytes if hasattr(p, "to_local") else p.nbytes for p in run.base.backbone.parameters())
        sizes.write_text(str(held - sum(p.nbytes for s in run.slots.names for p in run.slots.parameters(s).values())))
    return run_step(run, optimizers, step)

loop.run_step = watched
console = Console(file=(output.with_suffix(".txt")).open("a"), width=120)
runner.execute(check_manifest(manifest), output, console, "again", may_change=sys.argv[4:])
"""


@pytest.fixture
def launch(tmp_path: Path, interpreter: Any) -> Callable[..., Path]:
    """Run a manifest on so many ranks, with the launcher's further variables, to its end or to the step at which it dies."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def start(
        manifest: Path, name: str, ranks: int, variables: Mapping[str, str], dies: int = -1, may_change: Sequence[Change] = ()
    ) -> Path:  # fmt: skip
        output = tmp_path / name
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        group = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port)}  # fmt: skip
        started = [
            interpreter.start(script, manifest, output, str(dies), *may_change, environment={
                **os.environ, "ACCELERATE_USE_CPU": "true", **variables,
                **(group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}),
            })
            for rank in range(ranks)
        ]  # fmt: skip
        for done in [process.wait() for process in started]:
            assert done.returncode == (0 if dies < 0 else 9), done.stderr[-3000:]
        return output

    return start


def losses(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [update["losses"] for line in lines for update in line["updates"]]


def weights(output: Path) -> dict[str, dict[str, torch.Tensor]]:
    (last,) = (output / "checkpoints").glob("step-000006")
    return {file.name: load_file(file) for file in sorted(last.glob("*.safetensors"))}


def assert_same_training(one: Path, other: Path) -> None:
    for mine, theirs in zip(losses(one), losses(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-7)
    found, wanted = weights(one), weights(other)
    assert found.keys() == wanted.keys()
    for file, tensors in wanted.items():
        assert tensors.keys() == found[file].keys()
        for name, value in tensors.items():
            assert torch.allclose(found[file][name].float(), value.float(), rtol=1e-4, atol=1e-6), (file, name)


@pytest.mark.slow(60)
def test_two_ranks_with_a_shared_base_are_one_rank_with_a_whole_one(
    tiny_manifest: Callable[..., Path], tiny_data: Path, launch: Callable[..., Path]
) -> None:
    train = {"generator_steps": 6, "batch_size": 1, "global_batch": 2, "checkpoint_every": 2, "seed": 1, "device": "cpu",
             "gradient_checkpointing": True}  # fmt: skip
    pictures = str(tiny_data / "general")
    manifest = tiny_manifest(
        train=train,
        samples={"every": 3, "images": pictures},
        evaluate={"images": pictures, "pictures": 1, "teacher_steps": 2},
    )
    whole = launch(manifest, "whole", 1, {})
    plain = launch(manifest, "plain", 2, {})
    assert_same_training(plain, whole)
    shared = launch(manifest, "shared", 2, FSDP)
    assert_same_training(shared, whole)
    assert weights(shared).keys() == weights(plain).keys()
    for file, tensors in weights(plain).items():  # the same sums in the same order
        assert all(torch.equal(value, weights(shared)[file][name]) for name, value in tensors.items()), file

    everything, *parts = (int(path.read_text()) for path in map(Path, (f"{whole}.0", f"{shared}.0", f"{shared}.1")))
    assert all(part < 0.6 * everything for part in parts)
    for output in (
        whole,
        shared,
    ):  # the main rank's own work: grids, the card's pictures, the report, the export read back
        assert (output / "samples/step-000006.png").is_file() and (output / "result.png").is_file()
        assert (output / "collection/pytorch_lora_weights.safetensors").is_file()
    mine, theirs = (json.loads((output / "report.json").read_text()) for output in (shared, whole))
    assert mine.keys() == theirs.keys()

    launch(manifest, "killed", 2, FSDP, dies=3)
    assert [path.name for path in (shared.with_name("killed") / "checkpoints").iterdir()] == ["step-000002"]
    killed = launch(manifest, "killed", 2, FSDP)
    for file, tensors in weights(shared).items():
        assert all(torch.equal(value, weights(killed)[file][name]) for name, value in tensors.items()), file
    launch(manifest, "moved", 2, FSDP, dies=3)
    assert_same_training(launch(manifest, "moved", 1, {}), whole)  # the same files, on another number of ranks


@pytest.mark.slow(30)
def test_a_run_goes_on_on_another_number_of_ranks_where_it_is_told_so(
    tiny_manifest: Callable[..., Path], launch: Callable[..., Path]
) -> None:
    train = {"generator_steps": 6, "batch_size": 1, "checkpoint_every": 2, "seed": 1, "device": "cpu"}
    manifest = tiny_manifest(train=train)
    unbroken = launch(manifest, "unbroken", 2, {})
    moved = launch(manifest, "moved", 2, {}, dies=3)
    held = checkpoint.read(moved / "checkpoints/step-000002")
    with pytest.raises(
        CheckpointError, match=r"trained by 2 processes, .* run of 1: [\s\S]*--changed-ranks.*global_batch"
    ):
        refuse_another(check_manifest(str(manifest)), moved)
    refuse_another(check_manifest(str(manifest)), moved, may_change=["ranks"])
    launch(manifest, "moved", 1, {}, dies=5, may_change=["ranks"])
    alone = checkpoint.read(moved / "checkpoints/step-000004")
    launch(manifest, "moved", 2, FSDP, may_change=["ranks"])
    last, wanted = (checkpoint.read(output / "checkpoints/step-000006") for output in (moved, unbroken))
    for found in (held, alone, last):
        assert found.files.keys() == wanted.files.keys()
    assert [found.meta["processes"] for found in (held, alone, last)] == [2, 1, 2]
    told = ["after step 2 ranks were 2, and are 1", "after step 4 ranks were 1, and are 2"]
    assert last.meta["plugin_changes"] == told and "plugin_changes" in wanted.meta
    assert all(line in (moved / "manifest.resolved.yaml").read_text() for line in told)
    mine, theirs = ((output / "metrics.jsonl").read_text().splitlines() for output in (moved, unbroken))
    same = [json.loads(one)["updates"] == json.loads(other)["updates"] for one, other in zip(mine, theirs, strict=True)]
    assert same == [True, True, False, False, False, False]  # other items: why it is asked for


# --- in one process: all of the machinery but for the parts of others


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def gradients(run: Run, adapter: Any = None) -> list[torch.Tensor]:
    """Return the output of a teacher and the gradients of a checkpointed call, and of one for features."""
    context = update_context(run=run, seed=3)
    noise = context.random.normal((2, *context.batch.latent_shape), "x")
    sigma = torch.tensor([0.4, 0.7])
    run.slots.mount(adapter)
    features = context.features("student", noise, sigma)
    loss = features.square().mean() + context.student(noise, sigma).square().mean()
    with torch.no_grad(), run.slots.scope("teacher"):
        taught = run.base.predict(noise, sigma, context.batch.student.source, context.batch.student.prompt)
    weights = list(run.slots.parameters("student").values())
    loss.backward(inputs=weights)
    found = [taught, loss.detach(), *(weight.grad for weight in weights if weight.grad is not None)]
    for weight in weights:
        weight.grad = None
    return [tensor.clone() for tensor in found]


def checkpointed_run() -> Run:
    run = tiny_run(seed=4)
    run.base.enable_gradient_checkpointing(run.slots.run_pinned)
    return run


@pytest.mark.usefixtures("group")
def test_teachers_are_mounted_after_sharding_where_no_slot_has_a_layer() -> None:
    whole, shared = checkpointed_run(), checkpointed_run()
    everywhere = random_adapter(whole.base, "everywhere", targets=list(linear_shapes(TinyBase().backbone)))
    assert set(everywhere.modules) > set(whole.base.adapter_targets)
    shared.slots.mount(random_adapter(shared.base, "before"))
    shard(shared)
    assert shared.slots.mounted is None
    for adapter in (None, everywhere, random_adapter(whole.base, "another"), everywhere):
        for a, b in zip(gradients(whole, adapter), gradients(shared, adapter), strict=True):
            assert torch.equal(a, b)


@pytest.mark.usefixtures("group")
def test_what_is_trained_stays_whole_and_the_blocks_do_not() -> None:
    run = tiny_run(seed=4)
    shard(run)
    for slot in ("student", "critic"):
        assert all(type(value) is torch.nn.Parameter for value in run.slots.parameters(slot).values())
    shared = {name for name, value in run.base.backbone.named_parameters() if hasattr(value, "to_local")}
    assert shared and all(name.startswith("blocks.") and "lora" not in name for name in shared)


@pytest.mark.usefixtures("group")
def test_work_of_the_main_rank_alone_survives_a_call_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, run = checkpointed_run(), checkpointed_run()
    shard(run)
    wanted, told = gradients(whole), list[int]()
    broadcast = distributed.broadcast
    monkeypatch.setattr(
        distributed, "broadcast", lambda tensor, source: (told.append(int(tensor)), broadcast(tensor, source))
    )
    context = update_context(run=run, seed=3)
    x, sigma = context.random.normal((2, *context.batch.latent_shape), "x"), torch.tensor([0.4, 0.7])
    broken = run.base.backbone.get_submodule("blocks.1.up")
    handle = broken.register_forward_hook(lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryError), run.alone(), run.alone(), torch.no_grad():
        context.student(x, sigma)
    handle.remove()
    assert told == [0, 1, -1]
    for a, b in zip(wanted, gradients(run), strict=True):
        assert torch.equal(a, b)
    assert told == [0, 1, -1]


# --- what is refused


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("FSDP_VERSION", "1", "fsdp_version: 2"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "fsdp_reshard_after_forward: true"),
        ("FSDP_OFFLOAD_PARAMS", "true", "fsdp_offload_params: false"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading: false"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "train.gradient_checkpointing"),
    ],
)
def test_other_kinds_of_fsdp_are_refused(variable: str, value: str, said: str) -> None:
    refuse_sharding(None, FSDP)
    refuse_sharding(None, {variable: value})
    with pytest.raises(LaunchError, match=said):
        refuse_sharding(None, FSDP | {variable: value})
    with pytest.raises(LaunchError, match="fsdp_version: 2"):
        refuse_sharding(None, {"ACCELERATE_USE_FSDP": "true"})
