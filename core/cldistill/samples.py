"""Samples of a run: its teachers at many steps and its student at few, on held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.adapters.slots import TEACHER
from cldistill.data.encodings import Encoder
from cldistill.data.items import evenly, general_items, held_pairs, item_prompts, list_pictures
from cldistill.manifest.models import Evaluate, Manifest
from cldistill.records import STUDENT, EffectInfo, Item, Prompts
from cldistill.sampling.image_generator import ImageGenerator, Row, SamplingConfig
from cldistill.schedule import Schedule
from cldistill.training.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class SampledNetwork:
    """A network whose pictures a run shows: the mounted teacher or the student."""

    slot: str
    evaluations: int
    """Calls of the backbone per picture."""


def teacher_and_student(run: Run, teacher_steps: int) -> tuple[SampledNetwork, SampledNetwork]:
    """Return what grids, card and ``result.png`` compare: the teacher at many steps and the student at its few."""
    guided = 1 if run.base.target_guidance_scale == 1.0 else 2
    return SampledNetwork(TEACHER, teacher_steps * guided), SampledNetwork(STUDENT, run.schedule.steps)


@dataclass(frozen=True)
class RunSampler:
    """Makes pictures of held-out items with the teachers and the student of a run that is loaded."""

    run: Run
    encoder: Encoder
    seed: int = 1

    def pictures(self, network: SampledNetwork, rows: Sequence[Row]) -> list[Image]:
        """Return one picture per item; items of one pool, so that one teacher serves them all."""
        run = self.run
        generator = ImageGenerator(run.base, run.slots, self.encoder, str(run.accelerator.device), self.seed)
        self.encoder.ensure(rows)
        pictures: dict[int, Image] = {}
        for batch in generator.pictures(self._config(network, rows[0][0].pool), rows):
            pictures |= batch
        return [pictures[index] for index in range(len(rows))]

    def _config(self, network: SampledNetwork, effect: str) -> SamplingConfig:
        run = self.run
        if network.slot == STUDENT:
            return SamplingConfig(run.schedule, True, "student", slot=STUDENT)
        guided = 1 if run.base.target_guidance_scale == 1.0 else 2
        steps = network.evaluations // guided
        schedule = run.teacher_schedule(steps) if run.teacher_schedule else Schedule(steps, run.schedule.shift)
        return SamplingConfig.of_teacher(run.teachers.state(effect), schedule)


Rows = list[tuple[Item, Prompts]]

PICTURES_OF_RESULT = 2
"""Pictures an effect in ``result.png``."""


def held_out_items(pictures: Sequence[Path], effect: EffectInfo) -> list[Item]:
    """List held-out pictures as items of an effect; their keys end with the pictures' names."""
    return [Item(f"held-out/{p.stem}", effect.name, (p,), effect.prompt) for p in pictures]


def grid_effects(effects: Sequence[EffectInfo], wanted: Sequence[str] | None) -> list[EffectInfo]:
    """Return the effects that have a row in the grids of ``samples:``."""
    return [effect for effect in effects if wanted is None or effect.name in wanted]


def shown_rows(effect: EffectInfo, prompts: Prompts, pictures: Sequence[Path], index: int, count: int = 1) -> Rows:
    """Return what a run shows of its effect at ``index``: first held-out pairs, whose truth is known, then ``pictures``."""
    pairs = held_pairs(effect)[:count]
    chosen = [pictures[(count * index + offset) % len(pictures)] for offset in range(count - len(pairs))]
    return [(item, item_prompts(item, effect, prompts)) for item in (*pairs, *held_out_items(chosen, effect))]


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
            rows += shown_rows(effect, prompts[effect.name], pictures, index)
    if evaluate is not None:
        pictures = list_pictures(evaluate.images)
        for index, effect in enumerate(effects):
            items = [*held_out_items(pictures[: evaluate.pictures], effect), *held_pairs(effect)]
            rows += [(item, item_prompts(item, effect, prompts[effect.name])) for item in items]
            rows += shown_rows(effect, prompts[effect.name], pictures, index, PICTURES_OF_RESULT)
        rows += general_rows(evaluate)
    return list(dict.fromkeys(rows))
