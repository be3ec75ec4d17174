"""Samples of a run: its systems (a teacher at many steps, the student at few, the bare base) on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.data.encodings import Encoder
from cldistill.data.items import evenly, general_items, list_pictures
from cldistill.manifest.models import Evaluate, Manifest
from cldistill.records import GENERAL, EffectInfo, Item, Prompts
from cldistill.sampling.generator import ImageGenerator, Row, SamplingConfig
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
class RunSampler:
    """Makes pictures of items with any system of a run: for the grids of ``samples:``, the card, and the evaluation."""

    run: Run
    encoder: Encoder
    seed: int = 1

    @property
    def generator(self) -> ImageGenerator:
        """Return the generator that does the work."""
        return ImageGenerator(self.run.base, self.run.slots, self.encoder, str(self.run.accelerator.device), self.seed)

    def pictures(self, system: System, rows: Sequence[Row]) -> list[Image]:
        """Return one picture per item; items of one pool, so that one teacher serves them all."""
        self.encoder.ensure(rows)
        pictures: dict[int, Image] = {}
        for batch in self.generator.pictures(self.config(system, rows[0][0].pool), rows):
            pictures |= batch
        return [pictures[index] for index in range(len(rows))]

    def config(self, system: System, pool: str, digest: str = "") -> SamplingConfig:
        """Return how a system edits a pool; ``digest``: of its trained slot, where keys of caches are made of it."""
        if system.few_step:
            return SamplingConfig(self.run.schedule, True, "student", slot=system.slot, slot_digest=digest)
        guided = 1 if self.run.base.target_guidance_scale == 1.0 else 2
        schedule = Schedule(system.evaluations // guided, self.run.teacher_shift or self.run.schedule.shift)
        state = self.run.teachers.state(pool) if system.slot == TEACHER and pool != GENERAL else None
        return SamplingConfig.of_teacher(state, schedule)


Rows = list[tuple[Item, Prompts]]

PICTURES_OF_RESULT = 2
"""Pictures an effect in ``result.png``."""


def held_out_rows(pictures: Sequence[Path], effect: EffectInfo, prompts: Prompts) -> Rows:
    """Pair held-out pictures with an effect's prompts."""
    return [(item, prompts) for item in held_out_items(pictures, effect)]


def held_out_items(pictures: Sequence[Path], effect: EffectInfo) -> list[Item]:
    """List held-out pictures as items of an effect; their keys end with the pictures' names."""
    return [Item(f"held-out/{p.stem}", effect.name, (p,), effect.prompt) for p in pictures]


def grid_effects(effects: Sequence[EffectInfo], wanted: Sequence[str] | None) -> list[EffectInfo]:
    """Return the effects that have a row in the grids of ``samples:``."""
    return [effect for effect in effects if wanted is None or effect.name in wanted]


def grid_picture(pictures: Sequence[Path], index: int) -> Path:
    """Return the picture of a grid's row."""
    return pictures[index % len(pictures)]


def result_pictures(pictures: Sequence[Path], index: int) -> list[Path]:
    """Return the pictures that ``result.png`` shows of the effect at ``index``."""
    return [pictures[(PICTURES_OF_RESULT * index + offset) % len(pictures)] for offset in range(PICTURES_OF_RESULT)]


def general_rows(evaluate: Evaluate) -> Rows:
    """List held-out general instructions, as many as ``evaluate`` wants; none where it names no file."""
    if evaluate.general is None:
        return []
    items = evenly(general_items(evaluate.general.parent, evaluate.general), evaluate.general_pictures)
    return [(item, Prompts(item.prompt, item.prompt)) for item in items]


def later_rows(manifest: Manifest, effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts]) -> Rows:
    """List everything that ``samples:`` and ``evaluate:`` will ask for, each once."""
    samples, evaluate, rows = manifest.samples, manifest.evaluate, Rows()
    if samples is not None:
        pictures = list_pictures(samples.images)
        for index, effect in enumerate(grid_effects(effects, samples.effects)):
            rows += held_out_rows([grid_picture(pictures, index)], effect, prompts[effect.name])
    if evaluate is not None:
        pictures = list_pictures(evaluate.images)
        for index, effect in enumerate(effects):
            shown = [*pictures[: evaluate.pictures], *result_pictures(pictures, index)]
            rows += held_out_rows(shown, effect, prompts[effect.name])
        rows += general_rows(evaluate)
    return list(dict.fromkeys(rows))
