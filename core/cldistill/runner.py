"""What ``cldistill run`` does: assemble, train, export, measure, show."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cldistill.assemble import assemble
from cldistill.checked import CheckedManifest
from cldistill.data import list_pictures, open_picture
from cldistill.display import Display
from cldistill.evaluate import EvaluationPlan, evaluate
from cldistill.export import export_collection
from cldistill.files import atomic_write_text
from cldistill.grids import Row, save_grid
from cldistill.measure import peak_memory_mb
from cldistill.metrics_log import FILE, MetricsLog, read_metrics
from cldistill.prepare import Workshop
from cldistill.preview import SampleGrids, held_out_rows
from cldistill.run import Run
from cldistill.stages import LiveStages
from cldistill.systems import Studio, systems_of
from cldistill.train import final_weights, train
from cldistill.update import STUDENT


@dataclass(frozen=True)
class Outcome:
    """Where a run ended."""

    step: int
    finished: bool
    collection: Path | None = None
    picture: Path | None = None
    report: Path | None = None


def execute(checked: CheckedManifest, output: Path, console: Console, command: str) -> Outcome:
    """Run a checked manifest in ``output``; ``command`` is what resumes it."""
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    stages = LiveStages(console)
    run = assemble(checked, output, stages=stages, observers=[MetricsLog(), Display(console)])
    workshop: Workshop = run.extras["workshop"]
    if run.is_main:
        atomic_write_text(output / "manifest.resolved.yaml", run.resolved_manifest)
    grids = sample_grids(checked, workshop)
    if grids is not None:
        run.observers = (*run.observers, grids)
    step = train(run)
    if step < run.total_steps:
        if run.is_main:
            console.print(
                f"Stopped after step {step} of {run.total_steps}; everything is saved. Go on with:\n  {command}"
            )
        return Outcome(step, finished=False)
    if not run.is_main:
        return Outcome(step, finished=True)
    return finish(run, checked, console, stages, started)


def sample_grids(checked: CheckedManifest, workshop: Workshop) -> SampleGrids | None:
    """Return the observer that draws grids, where the manifest asks for them."""
    samples = checked.manifest.samples
    if samples is None:
        return None
    steps = checked.manifest.targets.steps if checked.manifest.targets else 40
    return SampleGrids(workshop.encoder, list_pictures(samples.images), samples.every, samples.effects, steps)


def finish(run: Run, checked: CheckedManifest, console: Console, stages: LiveStages, started: float) -> Outcome:
    """Export the collection, measure it, and print where everything lies."""
    weights, kind = final_weights(run, STUDENT)
    run.slots.load(STUDENT, weights)
    with stages.stage("exporting the collection", 1) as advance:
        collection = export_run(run, checked, weights, kind)
        advance(1)
    report: dict[str, Any] = {}
    picture = None
    if checked.manifest.evaluate is not None:
        plan = evaluation_plan(run, checked)
        workshop: Workshop = run.extras["workshop"]
        report["systems"] = evaluate(run, workshop.encoder, plan, workshop.cache / "evaluation", stages)
        picture = result_picture(run, plan, workshop, run.output / "result.png")
    report["run"] = run_figures(run, started)
    path = run.output / "report.json"
    atomic_write_text(path, json.dumps(report, indent=2) + "\n")
    if "systems" in report:
        console.print(report_table(report["systems"]))
    say_where(console, run, collection, picture, path)
    return Outcome(run.total_steps, True, collection, picture, path)


def export_run(run: Run, checked: CheckedManifest, weights: Mapping[str, Any], kind: str) -> Path:
    """Write ``OUT/collection``."""
    config = run.slot_config(STUDENT)
    teachers = {e.name: run.teachers.state(e.name) for e in run.effects}
    return export_collection(
        run.output / "collection", base=run.base, slots=run.slots, slot=STUDENT, weights=weights,
        rank=config.rank, alpha=config.alpha, weights_kind=kind, effects=run.effects, prompts=run.prompts,
        schedule=run.schedule, title=run.name, resolved_manifest=run.resolved_manifest,
        base_part=(checked.base.name, checked.base.settings.model_dump(mode="json")),
        teacher_digests={name: state.digest if state else "base" for name, state in teachers.items()},
        manifest_digest=run.manifest_digest, steps=run.total_steps,
    )  # fmt: skip


def evaluation_plan(run: Run, checked: CheckedManifest) -> EvaluationPlan:
    """Build the metrics of ``evaluate:``."""
    wanted = checked.manifest.evaluate
    assert wanted is not None
    metrics = {part.name: part.build(run.extras["context"]) for part in checked.metrics}
    images = wanted.general.parent if wanted.general is not None else None
    return EvaluationPlan(wanted.images, wanted.pictures, wanted.teacher_steps, metrics, images, wanted.general)


def result_picture(run: Run, plan: EvaluationPlan, workshop: Workshop, path: Path) -> Path:
    """Draw the run's picture: each effect by its own teacher and by the one student, on two held-out pictures."""
    studio = Studio(run, workshop.encoder)
    _, teacher, _, student = systems_of(run, plan.teacher_steps)
    pictures = list_pictures(plan.images)
    rows = []
    for index, effect in enumerate(run.effects):
        chosen = [pictures[(2 * index + offset) % len(pictures)] for offset in range(2)]
        items = held_out_rows(chosen, effect, run.prompts[effect.name])
        by_teacher, by_student = studio.pictures(teacher, items), studio.pictures(student, items)
        cells = [x for i, p in enumerate(chosen) for x in (open_picture(p), by_teacher[i], by_student[i])]
        rows.append(Row(effect.name, cells))
    columns = [
        "source",
        f"its own LoRA\n{teacher.evaluations} evaluations",
        f"one LoRA\n{student.evaluations} evaluations",
    ]
    save_grid(path, rows, columns * 2, f"{run.name}: {len(run.effects)} effects in one LoRA")
    return path


def run_figures(run: Run, started: float) -> dict[str, Any]:
    """Return the run's own figures; time and forwards of earlier, resumed sessions are those of ``metrics.jsonl``."""
    records = read_metrics(run.output / FILE)
    full = [r for r in records if {u["slot"] for u in r["updates"]} > {STUDENT}]
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory_mb(str(run.accelerator.device)), 1),
        "generator_steps": len(records),
        "full_generator_steps": len(full),
        "forwards": sum(r["forwards"] for r in records),
        "training_seconds": round(sum(r["seconds"] or 0.0 for r in records), 1),
    }


COLUMNS = (("closeness", "closeness"), ("nearest_is_right", "nearest is right"), ("retention", "retention"))


def report_table(systems: Mapping[str, Any]) -> Table:
    """Return the table that a run ends with: a row a system, its means; below, the student's effects one by one."""
    table = Table(title="Held-out pictures", title_justify="left")
    table.add_column("system")
    table.add_column("evaluations", justify="right")
    for _, title in COLUMNS:
        table.add_column(title, justify="right")
    for name, entry in systems.items():
        table.add_row(name, str(entry["evaluations"]), *_cells(entry["mean"]))
    table.add_section()
    *_, student = systems
    for effect, values in systems[student]["effects"].items():
        table.add_row(f"  {effect}", str(systems[student]["evaluations"]), *_cells(values))
    return table


def _cells(values: Mapping[str, float]) -> Sequence[str]:
    return [f"{values[key]:.3f}" if key in values else "–" for key, _ in COLUMNS]


def say_where(console: Console, run: Run, collection: Path, picture: Path | None, report: Path) -> None:
    """Print the paths and the command that tries the collection on one's own picture."""
    console.print(f"Report:     {report}", soft_wrap=True)
    console.print(f"Collection: {collection}", soft_wrap=True)
    if picture is not None:
        console.print(f"Picture:    {picture}", soft_wrap=True)
    console.print(
        f"Try it:     cldistill generate {collection} --image cat.png --effect {run.effects[0].name} -o out.png",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
