"""Mixed precision reaches every call of the backbone, and what a run cannot do is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from cldistill import assemble as assemble_module
from cldistill.errors import CheckpointError, LaunchError
from cldistill.testing.environment import catalogue_with
from cldistill.testing.runs import run_manifest
from cldistill.testing.tiny_network import Block

TRAIN = {"generator_steps": 2, "batch_size": 2, "checkpoint_every": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def own_accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """accelerate keeps its precision for the whole process: begin and end without one."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, torch.dtype]]:
    """What the attention of the backbone computed in, and the weights that it did it with."""
    dtypes: list[tuple[torch.dtype, torch.dtype]] = []
    forward = Block.forward

    def watch(block: Block, x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        dtypes.append((block.to_q(x).dtype, next(block.to_q.parameters()).dtype))
        return forward(block, x, known, mask)

    monkeypatch.setattr(Block, "forward", watch)
    return dtypes


@pytest.mark.slow
def test_bf16_reaches_every_call_and_no_weight(seen: list[tuple[torch.dtype, torch.dtype]], tmp_path: Path) -> None:
    done = run_manifest(tmp_path, train={**TRAIN, "mixed_precision": "bf16"})
    assert done.collection is not None  # the export's round trip is judged by what bf16 explains
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    from safetensors.torch import load_file

    weights = load_file(done.folder / "checkpoints/step-000002/student.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.mark.slow
def test_by_default_the_launcher_decides(
    seen: list[tuple[torch.dtype, torch.dtype]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_manifest(tmp_path / "full", train=TRAIN)
    assert {computed for computed, _ in seen} == {torch.float32}
    AcceleratorState._reset_state(True)
    seen.clear()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    run_manifest(tmp_path / "mixed", train=TRAIN)
    assert {computed for computed, _ in seen} == {torch.bfloat16}


@pytest.mark.slow
def test_a_run_does_not_go_on_in_another_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_manifest(tmp_path, train=TRAIN)
    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(CheckpointError, match="was trained in mixed precision 'no', and this run is in 'bf16'"):
        run_manifest(tmp_path, train=TRAIN)


@pytest.mark.slow
def test_targets_of_another_precision_are_other_targets(tmp_path: Path) -> None:
    run_manifest(tmp_path, train=TRAIN)
    before = set((tmp_path / "cache").rglob("*.safetensors"))
    AcceleratorState._reset_state(True)
    run_manifest(tmp_path, train={**TRAIN, "mixed_precision": "bf16"}, output=tmp_path / "other")
    assert set((tmp_path / "cache").rglob("*.safetensors")) > before


def test_fp16_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises((LaunchError, ValueError), match="fp16"):
        run_manifest(tmp_path, catalogue_with(), train=TRAIN)


def test_determinism_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assemble_module.make_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        assemble_module.make_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
        assert assemble_module.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
