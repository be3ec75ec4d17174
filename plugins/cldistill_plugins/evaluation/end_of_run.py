"""The end of a run: the evaluator measures base, teachers and student with what is still loaded, and the run is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cldistill.adapters.slots import AdapterSlots
from cldistill.data.items import list_pictures, open_picture
from cldistill.markers import hookimpl
from cldistill.protocols import KnowsTruth
from cldistill.records import GENERAL, STUDENT
from cldistill.samples import PICTURES_OF_RESULT, RunSampler, shown_rows, teacher_and_student
from cldistill.training.run import ExportedRun, Run
from cldistill_plugins.evaluation.check import EvaluationPlan, systems_of_run
from cldistill_plugins.evaluation.evaluate import evaluate_systems, picture_store, write_pages
from cldistill_plugins.evaluation.report.page import lacking
from cldistill_plugins.evaluation.report.record import Evaluation
from cldistill_plugins.evaluation.setup import EvaluationSetup, setup_of_run
from cldistill_plugins.evaluation.summary import summary_tables
from cldistill_plugins.evaluation.systems import OpenedSystem, open_systems
from cldistill_plugins.samples.api import GridRow, save_grid, true_output, without_empty

PAGE_MEGABYTES = 2.0
"""Pictures in the page that a run writes, which nobody should have to wait for; ``cldistill report RUN`` puts in more."""


class EndOfRun:
    """The observer that measures a run on held-out pictures once its collection is on disk."""

    @hookimpl
    def run_exported(self, run: Run, exported: ExportedRun) -> None:
        """Measure what ``evaluate:`` asks for, write the report's pages, and draw the run's picture."""
        evaluate = exported.checked.manifest.evaluate
        if evaluate is None:
            return
        setup = setup_of_run(run, exported, evaluate.seed)
        systems = systems_of_run(exported.checked, evaluate, exported.collection)
        plan = EvaluationPlan(evaluate, systems, evaluate.not_run)
        stages = exported.preparation.stages
        store, opened = picture_store(setup.context.cache), open_run_systems(setup, plan)
        report = evaluate_systems(setup, plan, opened, run.output, store, stages, exported.command)
        exported.report |= report
        write_pages(run.output, report, stages, PAGE_MEGABYTES)
        silent = {entry["component"] for entry in report["not_measured"]}
        truths = [metric.truth for metric in setup.metrics[0] if metric.truth is not None and metric.name not in silent]
        picture = result_picture(run, evaluate.images, evaluate.teacher_steps, exported, truths)
        page = run.output / "report.html"
        exported.results += [*([("Page", page)] if page.is_file() else []), ("Picture", picture)]
        for table in summary_tables(Evaluation.model_validate(report), exported.console.width):
            exported.console.print(table)
        if (reason := lacking()) is not None:
            exported.console.print(reason, markup=False, highlight=False, soft_wrap=True)


def open_run_systems(setup: EvaluationSetup, plan: EvaluationPlan) -> list[OpenedSystem]:
    """Return a run's systems: the base in the general pool alone, teachers on their effects alone, the student on all.

    The student is the slot that was exported, as it is still loaded.
    """
    *teachers, student = plan.systems
    effects = [effect.name for effect in setup.checked.effects]
    pools: Mapping[str | Path | None, Sequence[str]] = {None: [GENERAL]}
    opened = [
        replace(system, pools=pools.get(system.spec.adapter, effects))
        for system in open_systems(setup, tuple(teachers))
    ]
    digest = slot_digest(setup.generator.slots, STUDENT)
    return [*opened, OpenedSystem(student, setup, slot=STUDENT, slot_digest=digest)]


def result_picture(
    run: Run, images: Path, teacher_steps: int, exported: ExportedRun, truths: Sequence[KnowsTruth]
) -> Path:
    """Draw ``result.png``: each effect by its own teacher and by the one student, on two held-out pictures.

    Held-out pairs come first, and their after-pictures stand beside them, as do the true outputs that one of ``truths`` knows.
    """
    studio = RunSampler(run, exported.preparation.encoder)
    teacher, student = teacher_and_student(run, teacher_steps)
    pictures = list_pictures(images)
    rows = []
    for index, effect in enumerate(run.effects):
        shown = shown_rows(effect, run.prompts[effect.name], pictures, index, PICTURES_OF_RESULT)
        by_student = studio.pictures(student, shown)
        taught = exported.checked.teachers[effect.name] is not None
        by_teacher = studio.pictures(teacher, shown) if taught else [None] * len(shown)
        cells = [
            picture
            for (item, _), own, one in zip(shown, by_teacher, by_student, strict=True)
            for picture in (open_picture(item.sources[0]), true_output(truths, item, one.size), own, one)
        ]
        rows.append(GridRow(effect.name, cells))
    columns = [
        "source",
        "true effect",
        f"its own LoRA\n{teacher.evaluations} evaluations",
        f"one LoRA\n{student.evaluations} evaluations",
    ]
    path = run.output / "result.png"
    table = without_empty(rows, columns * PICTURES_OF_RESULT)
    save_grid(path, *table, f"{run.name}: {len(run.effects)} effects in one LoRA")
    return path


def slot_digest(slots: AdapterSlots, name: str) -> str:
    """Hash the weights of a trained slot as they stand, and its alpha."""
    found = hashlib.sha256(repr(slots.alpha(name)).encode())
    for key, value in sorted(slots.state(name).items()):
        found.update(key.encode() + value.float().cpu().numpy().tobytes())
    return found.hexdigest()
