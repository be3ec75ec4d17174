"""The memory of a run."""

from __future__ import annotations

from typing import Any

from cldistill_plugins.planning.memory import adapter_sizes, memory


def test_checkpointing_shrinks_the_activations(world: Any) -> None:
    plain, saved = (
        memory(world.check(f"train.gradient_checkpointing={on}"))[1][-1].bytes for on in ("false", "true")
    )  # fmt: skip
    assert saved < plain


def test_kept_copies_take_two_bytes_a_parameter_of_the_slots(world: Any) -> None:
    cast, kept = (
        sum(amount.bytes for amount in memory(world.check(f"train.lora_copies={on}"))[1]) for on in ("false", "true")
    )
    parameters = sum(size.parameters for size in adapter_sizes(world.check()))
    assert kept - cast == 2 * parameters > 0
