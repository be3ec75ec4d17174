"""The evaluation setup: base, prompts and teachers, loaded by ``cldistill eval`` or taken over from a run that has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cldistill.assemble import load_base, start
from cldistill.component import BuildContext
from cldistill.data.teachers import TeacherBank
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.prompts import isolate
from cldistill.prepare import teacher_bank
from cldistill.progress.stages import Stages
from cldistill.protocols import BaseModel
from cldistill.records import Prompts
from cldistill.sampling.image_generator import ImageGenerator
from cldistill.training.run import ExportedRun, Run
from cldistill_plugins.evaluation.metrics import BuiltMetric, Reasons, build_metrics


@dataclass(frozen=True)
class EvaluationSetup:
    """Everything that pictures are made with: made by `load_setup` or `setup_of_run`, used by every evaluated system."""

    checked: CheckedManifest
    context: BuildContext
    generator: ImageGenerator
    prompts: Mapping[str, Prompts]
    teachers: TeacherBank
    """Empty where no system asks for them."""

    @property
    def base(self) -> BaseModel:
        """The base model."""
        return self.generator.base

    @cached_property
    def metrics(self) -> tuple[list[BuiltMetric], Reasons]:
        """The metrics of the manifest, built once, since some load weights; and the reasons of those that cannot be."""
        return build_metrics(self.checked.metrics, self.context)


def load_setup(
    checked: CheckedManifest, output: Path, cache: Path, stages: Stages, stop: Callable[[], bool], *,
    teachers: Collection[str], seed: int, train: bool = True,
) -> EvaluationSetup:  # fmt: skip
    """Load the base and give every effect its prompts; train the ``teachers`` that are not in the cache, by effects' names.

    Without ``train`` a teacher is trained when a picture of it is made: a share of the pictures needs few.

    Raises:
        Stopped: ``stop`` said so while a teacher was trained.
    """
    accelerator, context = start(checked, output, cache)
    preparation = load_base(checked, accelerator, context, stages, stop)
    base = preparation.base
    prompts = isolate(checked, checked.prompts.build(context), base.tokenize)
    bank = teacher_bank(checked, preparation) if teachers else TeacherBank({})
    for name in [name for name in checked.trained_teachers if train and name in teachers]:  # before any picture is made
        bank.state(name)
    return EvaluationSetup(
        checked,
        context,
        ImageGenerator(base, preparation.slots, preparation.encoder, context.device, seed),
        prompts,
        bank,
    )


def setup_of_run(run: Run, exported: ExportedRun, seed: int) -> EvaluationSetup:
    """Take over what a run has loaded."""
    prepared = exported.preparation
    generator = ImageGenerator(run.base, run.slots, prepared.encoder, str(run.accelerator.device), seed)
    return EvaluationSetup(exported.checked, prepared.context, generator, run.prompts, run.teachers)
