"""Two CPU ranks, as a launcher starts them, train and end with the same weights, and log what both of them saw."""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import json
import sys
from dataclasses import replace
from pathlib import Path
from cldistill.assemble import assemble
from cldistill.training.metrics_log import MetricsLog
from cldistill.training.train import train
from cldistill.manifest.check import check_manifest
from safetensors.torch import save_file

output = Path(sys.argv[2])
output.mkdir(parents=True, exist_ok=True)
run = assemble(check_manifest(sys.argv[1]), output, observers=lambda context: [MetricsLog()])
assert run.accelerator.num_processes == 2
rank, said = run.accelerator.process_index, []

def breaking(loss):
    # On rank 1 alone: a loss that is not finite in the second step, and one whose gradient alone is not in the third.
    def called(context):
        out = loss(context)
        said.append([context.step, context.term, float(out.loss.detach())])
        if rank == 1 and context.step == 1:
            return replace(out, loss=out.loss * float("nan"))
        if rank == 1 and context.step == 2:
            return replace(out, loss=out.loss + (out.loss - out.loss.detach()).abs().sqrt())
        return out
    return called

run.terms = tuple(replace(term, loss=breaking(term.loss)) for term in run.terms)
assert train(run) == 4
state = {f"{slot}.{name}": value for slot in ("student", "critic") for name, value in run.slots.state(slot).items()}
whole = {name: value.contiguous() for name, value in state.items()}
save_file(whole, output / f"rank-{rank}.safetensors")
(output / f"forwards-{rank}").write_text(str(run.forwards))
(output / f"said-{rank}").write_text(json.dumps(said))
"""


@pytest.mark.slow
def test_two_ranks_end_with_the_same_weights_and_made_the_same_number_of_forwards(
    tiny_manifest: Callable[..., Path], tmp_path: Path, interpreter: Any
) -> None:
    train = {"generator_steps": 4, "batch_size": 1, "checkpoint_every": 2, "seed": 1, "device": "cpu"}
    manifest = tiny_manifest(train=train)
    script, output = tmp_path / "train.py", tmp_path / "out"
    script.write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    ranks = [
        interpreter.start(
            script, manifest, output, environment=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}
        )
        for rank in ("0", "1")
    ]
    for done in [rank.wait() for rank in ranks]:
        assert done.returncode == 0, done.stderr[-3000:]

    zero, one = (load_file(output / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert any(value.any() for name, value in zero.items() if "lora_B" in name)
    assert all(torch.equal(zero[name], one[name]) for name in zero)
    assert (output / "forwards-0").read_text() == (output / "forwards-1").read_text()
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [{update["skipped"] for update in line["updates"]} for line in metrics] == [{False}, {True}, {True}, {False}]
    said = [json.loads((output / f"said-{rank}").read_text()) for rank in (0, 1)]
    logged = [
        (line["step"] - 1, term, loss)
        for line in metrics for update in line["updates"] for term, loss in update["losses"].items()
    ]  # fmt: skip
    assert len(logged) == len(said[0]) == len(said[1]) == 8
    for (step, term, loss), mine, other in zip(logged, *said, strict=True):
        assert [step, term] == mine[:2] == other[:2]
        assert loss is None if step == 1 else math.isclose(loss, (mine[2] + other[2]) / 2, rel_tol=1e-6)
    assert any(mine[2] != other[2] for mine, other in zip(*said, strict=True))


@pytest.mark.slow(12)
def test_two_runs_at_once_share_a_cache(tiny_manifest: Callable[..., Path], tmp_path: Path, interpreter: Any) -> None:
    """Both find teachers, encodings and targets missing and make them; the same collections come out as from one alone."""
    manifest = tiny_manifest()
    shared = {**os.environ, "CLDISTILL_CACHE": str(tmp_path / "shared")}

    def start(output: str, environment: dict[str, str]) -> Any:
        words = ("-m", "cldistill", "run", manifest, "--output", tmp_path / output)
        return interpreter.start(*words, environment=environment)

    running = [start(name, shared) for name in ("one", "two")]
    ended = [each.wait() for each in running]
    assert [each.returncode for each in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    alone = start("alone", {**os.environ, "CLDISTILL_CACHE": str(tmp_path / "own")}).wait()
    assert alone.returncode == 0, alone.stderr
    made = [(tmp_path / name / "collection" / "pytorch_lora_weights.safetensors") for name in ("one", "two", "alone")]
    one, two, other = (load_file(path) for path in made)
    assert all(torch.equal(one[name], two[name]) and torch.equal(one[name], other[name]) for name in other)
