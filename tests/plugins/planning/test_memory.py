"""The memory of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cldistill.manifest.check import check_manifest
from cldistill_plugins.planning.fit import ranks_here
from cldistill_plugins.planning.memory import adapter_sizes, memory


def test_checkpointing_shrinks_the_activations(world: Any) -> None:
    plain, saved = (
        memory(world.check(f"train.gradient_checkpointing={on}")).training[-1].bytes for on in ("false", "true")
    )  # fmt: skip
    assert saved < plain


def test_kept_copies_take_two_bytes_a_parameter_of_the_slots(world: Any) -> None:
    cast, kept = (
        sum(amount.bytes for amount in memory(world.check(f"train.lora_copies={on}")).training)
        for on in ("false", "true")
    )
    parameters = sum(size.parameters for size in adapter_sizes(world.check()))
    assert kept - cast == 2 * parameters > 0


def test_a_base_that_ranks_share_is_whole_until_it_is_prepared() -> None:
    """By hand from the config: 60 blocks hold all but the embeddings and the last layer of 20.43 B parameters in bf16."""
    checked = check_manifest("collectionlora-50", files=False)
    alone, shared = memory(checked), memory(checked, 8)
    assert alone.sampling == () and alone.preparing == shared.preparing
    part, gathered = shared.training[1:3]
    description = checked.description
    block = sum(
        tall * wide for name, (tall, wide) in description.modules.items() if name.startswith("transformer_blocks.0.")
    )
    outside = description.parameters - 60 * block
    assert 0 < outside < 0.005 * description.parameters
    assert part.bytes == pytest.approx(2 * (outside + 60 * block / 8)) and gathered.bytes == pytest.approx(
        3 * 2 * block
    )
    assert [amount for amount in shared.training[3:]] == [amount for amount in alone.training[2:]]
    assert {amount.name: amount.bytes for amount in shared.sampling}["frozen backbone"] == alone.training[1].bytes
    assert shared.peak == sum(amount.bytes for amount in shared.sampling) < 0.7 * alone.peak
    page = Path(__file__).parents[3].joinpath("docs/several-machines.md").read_text()
    sums = [sum(amount.bytes for amount in stage) / 1e9 for stage in (shared.sampling, alone.training, shared.training)]
    assert f"| {sums[0]:.1f} | {sums[0]:.1f} |" in page and f"| {sums[1]:.1f} | {sums[2]:.1f} |" in page


def test_a_launch_for_fsdp_is_planned_for_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert ranks_here() == 1
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert ranks_here() == 8
