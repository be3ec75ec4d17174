"""Systems that a run samples and compares: a teacher at many steps, the student at few, the bare base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cldistill.data.encodings import Encoder
from cldistill.protocols import BaseModel
from cldistill.records import GENERAL
from cldistill.sampling.generator import Painter, Row, Way
from cldistill.schedule import Schedule
from cldistill.training.run import Run
from cldistill.training.update import STUDENT, TEACHER

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class System:
    """One way to make pictures. ``slot`` None is the bare backbone."""

    name: str
    slot: str | None
    evaluations: int
    """Calls of the backbone per picture."""
    few_step: bool = False


def systems_of(run: Run, teacher_steps: int) -> tuple[System, ...]:
    """Return base, teacher and student as the report compares them: the teacher at its own steps and at the student's."""
    few = run.schedule.steps
    guided = 1 if run.base.target_guidance_scale == 1.0 else 2
    return (
        System("base", None, few * guided),
        System(f"teacher@{teacher_steps}", TEACHER, teacher_steps * guided),
        System(f"teacher@{few}", TEACHER, few * guided),
        System(f"student@{few}", STUDENT, few, few_step=True),
    )


@dataclass(frozen=True)
class Studio:
    """Makes pictures of items with any system of a run."""

    run: Run
    encoder: Encoder
    seed: int = 1

    @property
    def base(self) -> BaseModel:
        """The run's base model."""
        return self.run.base

    @property
    def painter(self) -> Painter:
        """What does the work."""
        return Painter(self.base, self.run.slots, self.encoder, str(self.run.accelerator.device), self.seed)

    def pictures(
        self, system: System, rows: Sequence[Row], advance: Callable[[int], None] = lambda done: None
    ) -> list[Image]:
        """Return one picture per item; items of one pool, so that one teacher serves them all."""
        self.encoder.ensure(rows)
        pictures: list[Image] = [None] * len(rows)  # type: ignore[list-item]
        for batch in self.painter.paint(self.way(system, rows[0][0].pool), rows):
            for index, picture in batch:
                pictures[index] = picture
            advance(len(batch))
        return pictures

    def way(self, system: System, pool: str, digest: str = "") -> Way:
        """Return how a system edits a pool; ``digest``: of its trained slot, where keys of caches are made of it."""
        if system.few_step:
            return Way(self.run.schedule, True, "student", slot=system.slot, slot_digest=digest)
        guided = 1 if self.base.target_guidance_scale == 1.0 else 2
        schedule = Schedule(system.evaluations // guided, self.run.teacher_shift or self.run.schedule.shift)
        state = self.run.teachers.state(pool) if system.slot == TEACHER and pool != GENERAL else None
        way = Way(schedule, False, adapters=() if state is None else (state,))
        if state is not None and state.few_step is not None:  # a frozen collection teaches by its own few steps
            return replace(way, schedule=state.few_step, few_step=True)
        return way
