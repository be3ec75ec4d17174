"""Systems that can be sampled and compared: a teacher at many steps, the student at few, the bare base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from cldistill.dataset import Dataset, Example, by_batch_key
from cldistill.encodings import Encoder
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, Item, Prompts, Route
from cldistill.run import Run
from cldistill.sample import few_step
from cldistill.schedule import Schedule
from cldistill.targets import SAMPLE_BATCH, TeacherSampler
from cldistill.update import STUDENT, TEACHER

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

    def pictures(
        self, system: System, rows: Sequence[tuple[Item, Prompts]], advance: Callable[[int], None] = lambda done: None
    ) -> list[Image]:
        """Return one picture per item; items of one pool, so that one teacher serves them all."""
        if system.slot == TEACHER:
            pool = rows[0][0].pool
            self.run.teachers.mount(self.run.slots, None if pool == GENERAL else pool)
        self.encoder.ensure(rows)
        examples = [self.encoder.example(item, prompts) for item, prompts in rows]
        pictures: list[Image] = [None] * len(examples)  # type: ignore[list-item]
        for chunk in _chunks(examples):
            for index, picture in zip(chunk, self._make(system, [examples[i] for i in chunk]), strict=True):
                pictures[index] = picture
            advance(len(chunk))
        return pictures

    @torch.no_grad()
    def _make(self, system: System, examples: Sequence[Example]) -> list[Image]:
        device = str(self.run.accelerator.device)
        random = KeyedRandom(self.seed, device=device).child("evaluate")
        x0 = (
            self._few_step(system, examples, random)
            if system.few_step
            else self._euler(system, examples, random, device)
        )
        source = self.base.collate([example.source() for example in examples])
        return self.base.decode(x0, {name: value.to(device) for name, value in source.items()})

    def _euler(self, system: System, examples: Sequence[Example], random: KeyedRandom, device: str) -> torch.Tensor:
        guided = 1 if self.base.target_guidance_scale == 1.0 else 2
        schedule = Schedule(system.evaluations // guided, self.run.teacher_shift or self.run.schedule.shift)
        sampler = TeacherSampler(self.base, self.run.slots, schedule, random, device)
        return sampler.sample(examples, system.slot)

    def _few_step(self, system: System, examples: Sequence[Example], random: KeyedRandom) -> torch.Tensor:
        route = Route("sampling", {examples[0].item.pool: 1.0})
        batch = Dataset(self.base, {}).collate(route, [replace(e, target=None) for e in examples], random.device)

        def noise(step: int) -> torch.Tensor:
            keys = [("noise", example.item.key, step) for example in examples]
            return torch.cat([random.normal((1, *batch.latent_shape), *key, per_rank=False) for key in keys])

        def predict(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.base.predict(x, sigma, batch.student.source, batch.student.prompt)

        with self.run.slots.scope(system.slot):
            return few_step(predict, self.run.schedule, noise)


def _chunks(examples: Sequence[Example]) -> list[list[int]]:
    """Group indices of examples by batch key into batches."""
    return [g[i : i + SAMPLE_BATCH] for g in by_batch_key(examples) for i in range(0, len(g), SAMPLE_BATCH)]
