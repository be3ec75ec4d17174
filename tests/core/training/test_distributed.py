"""Two CPU ranks, as a launcher starts them, train and end with the same weights."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
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
assert train(run) == 4
state = {f"{slot}.{name}": value for slot in ("student", "critic") for name, value in run.slots.state(slot).items()}
whole = {name: value.contiguous() for name, value in state.items()}
save_file(whole, output / f"rank-{run.accelerator.process_index}.safetensors")
(output / f"forwards-{run.accelerator.process_index}").write_text(str(run.forwards))
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
    assert len((output / "metrics.jsonl").read_text().splitlines()) == 4
