"""The memory of a run."""

from __future__ import annotations

from typing import Any

from cldistill_plugins.planning.memory import memory


def test_checkpointing_shrinks_the_activations(world: Any) -> None:
    plain, saved = (
        memory(world.check(f"train.gradient_checkpointing={on}"))[1][-1].bytes for on in ("false", "true")
    )  # fmt: skip
    assert saved < plain
