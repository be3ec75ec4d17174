"""What preparation tells a display: named stages with progress.  `cldistill.display` shows them; this one is silent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stages(Protocol):
    """Shows named stages of the preparation."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a stage of ``total`` parts; the block calls the function it is given with the number of parts done."""


class SilentStages:
    """Shows nothing: tests, and the ranks beside the main process."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Count nothing."""
        return nullcontext(lambda done: None)
