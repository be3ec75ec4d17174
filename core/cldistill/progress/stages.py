"""Named stages of long work with their progress, told to a display: `cldistill.progress.live` shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from cldistill.progress.signals import raise_if_stopped


class Stages(Protocol):
    """Shows named stages of the preparation."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Show a stage of ``total`` parts; the block calls the function it is given with the number of parts done."""


class SilentStages:
    """Shows nothing: tests, and the ranks beside the main process."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Count nothing."""
        return nullcontext(lambda done: None)


class StoppableStages:
    """Other stages, which are left (`cldistill.errors.Stopped`) where ``stop`` says so: before, and after each part.

    For work that can be begun again without loss; what saves itself first asks ``stop`` by itself.
    """

    def __init__(self, stages: Stages, stop: Callable[[], bool]) -> None:
        self._stages = stages
        self._stop = stop

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a stage of ``total`` parts."""
        raise_if_stopped(self._stop, name)
        with self._stages.stage(name, total) as advance:

            def advance_or_leave(done: int) -> None:
                advance(done)
                raise_if_stopped(self._stop, name)

            yield advance_or_leave
