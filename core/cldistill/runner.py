"""What ``cldistill run`` does: assemble, train, export, measure, show."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cldistill.assemble import assemble
from cldistill.checked import CheckedManifest
from cldistill.collection_index import read_index
from cldistill.data import list_pictures, open_picture
from cldistill.display import Display
from cldistill.errors import Stopped
from cldistill.evaluate import EvaluationPlan, evaluate
from cldistill.export import export_collection
from cldistill.export_check import fixed_probe
from cldistill.files import atomic_write_text
from cldistill.grids import Row, save_grid
from cldistill.held_out import PICTURES_OF_RESULT, held_out_rows, result_pictures
from cldistill.measure import peak_memory_mb
from cldistill.metrics_log import FILE, MetricsLog, read_metrics
from cldistill.prepare import Workshop
from cldistill.preview import SampleGrids
from cldistill.progress import Stages, StoppableStages
from cldistill.resolved import resolved_text
from cldistill.run import Run
from cldistill.signals import IN_LOOP, OUTSIDE_LOOP, StopRequest, graceful_stop
from cldistill.stages import LiveStages
from cldistill.systems import Studio, systems_of
from cldistill.train import final_weights, train
from cldistill.update import STUDENT

PER_PICTURE = "per_picture.json"
"""Every value behind ``report.json``, for intervals and comparisons of two runs picture by picture."""


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
    with graceful_stop() as stop:
        try:
            return _execute(checked, output, console, command, stop)
        except (Stopped, RuntimeError) as error:
            # Where one process has left, the others lose the connection at their next meeting.
            if not isinstance(error, Stopped) and not (stop and processes() > 1):
                raise
            if is_main():
                why = str(error) if isinstance(error, Stopped) else "stopped while waiting for another process"
                say_stopped(console, f"{why[0].upper()}{why[1:]}.", command)
            return Outcome(saved_step(output), finished=False)


def _execute(checked: CheckedManifest, output: Path, console: Console, command: str, stop: StopRequest) -> Outcome:
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    stages = LiveStages(console)
    stop.promise = OUTSIDE_LOOP
    observers = [MetricsLog(), Display(console)]
    run = assemble(checked, output, stages=stages, observers=observers, stop=lambda: bool(stop))
    workshop: Workshop = run.extras["workshop"]
    if run.is_main:
        atomic_write_text(output / "manifest.resolved.yaml", run.resolved_manifest)
    grids = sample_grids(checked, workshop)
    if grids is not None:
        run.observers = (*run.observers, grids)
    stop.promise = IN_LOOP
    step = train(run, stop)
    if step < run.total_steps:
        if run.is_main:
            say_stopped(console, f"Stopped after step {step} of {run.total_steps}; everything is saved.", command)
        return Outcome(step, finished=False)
    if not run.is_main:
        return Outcome(step, finished=True)
    stop.promise = OUTSIDE_LOOP
    return finish(run, checked, console, StoppableStages(stages, lambda: bool(stop)), started)


def is_main() -> bool:
    """Whether this is the process that speaks; also known where the run was left before it was assembled."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """Return the number of processes of the run, known in the same way."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def saved_step(output: Path) -> int:
    """Return the step of the newest checkpoint, 0 where there is none."""
    return max((int(p.name.removeprefix("step-")) for p in (output / "checkpoints").glob("step-*")), default=0)


def say_stopped(console: Console, text: str, command: str) -> None:
    """Say how far the run came, and the command that goes on, as it can be copied: neither wrapped nor interpreted."""
    console.print(f"{text} Go on with:\n  {command}", markup=False, highlight=False, soft_wrap=True)


def sample_grids(checked: CheckedManifest, workshop: Workshop) -> SampleGrids | None:
    """Return the observer that draws grids, where the manifest asks for them."""
    samples = checked.manifest.samples
    if samples is None:
        return None
    steps = checked.manifest.targets.steps if checked.manifest.targets else 40
    return SampleGrids(workshop.encoder, list_pictures(samples.images), samples.every, samples.effects, steps)


def finish(run: Run, checked: CheckedManifest, console: Console, stages: Stages, started: float) -> Outcome:
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
        found = evaluate(run, workshop.encoder, plan, workshop.cache / "evaluation", stages)
        report["systems"] = found.systems
        atomic_write_text(run.output / PER_PICTURE, json.dumps(found.per_picture) + "\n")
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
    workshop: Workshop = run.extras["workshop"]
    probe = fixed_probe(run.base, run.prompts[run.effects[0].name].student, workshop.encoder.cache)
    run.base.drop_encoders()  # they came back only if the cache was emptied meanwhile
    return export_collection(
        run.output / "collection", base=run.base, slots=run.slots, slot=STUDENT, weights=weights,
        rank=config.rank, alpha=config.alpha, weights_kind=kind, effects=run.effects, prompts=run.prompts,
        schedule=run.schedule, title=run.name, resolved_manifest=resolved_text(checked, portable=True),
        base_part=(checked.base.name, checked.base.settings.model_dump(mode="json")),
        teacher_digests={e.name: run.teachers.digest(e.name) or "base" for e in run.effects}, probe=probe,
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
        chosen = result_pictures(pictures, index)
        items = held_out_rows(chosen, effect, run.prompts[effect.name])
        by_teacher, by_student = studio.pictures(teacher, items), studio.pictures(student, items)
        cells = [x for i, p in enumerate(chosen) for x in (open_picture(p), by_teacher[i], by_student[i])]
        rows.append(Row(effect.name, cells))
    columns = [
        "source",
        f"its own LoRA\n{teacher.evaluations} evaluations",
        f"one LoRA\n{student.evaluations} evaluations",
    ]
    save_grid(path, rows, columns * PICTURES_OF_RESULT, f"{run.name}: {len(run.effects)} effects in one LoRA")
    return path


def run_figures(run: Run, started: float) -> dict[str, Any]:
    """Return the run's own figures; time and forwards of earlier, resumed sessions are those of ``metrics.jsonl``."""
    records = read_metrics(run.output / FILE)
    full = [record for record in records if is_full(run, record)]
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(peak_memory_mb(str(run.accelerator.device)), 1),
        "generator_steps": len(records),
        "full_generator_steps": len(full),
        "forwards": sum(r["forwards"] for r in records),
        "training_seconds": round(sum(r["seconds"] or 0.0 for r in records), 1),
    }


def is_full(run: Run, record: Mapping[str, Any]) -> bool:
    """Whether a step of the log ran the whole objective: every loss of the student, and an update of every other slot."""
    slots = {update["slot"] for update in record["updates"]}
    wanted = {term.name for term in run.terms if term.slot == STUDENT}
    ran = {name for update in record["updates"] if update["slot"] == STUDENT for name in update["losses"]}
    return slots >= {config.name for config in run.slot_configs} and ran >= wanted


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
    lines = [f"Report:     {report}", f"Collection: {collection}"]
    if picture is not None:
        lines.append(f"Picture:    {picture}")
    lines.append(f"Try it:     {generate_command(run, collection)}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def generate_command(run: Run, collection: Path) -> str:
    """Return the command that makes a picture; a base in a local folder, which no collection names, is given."""
    model = run.extras.get("model")
    local = isinstance(model, str | Path) and Path(model).is_absolute()
    base = ["--base", str(model)] if local and "model" not in read_index(collection).base_options else []
    effect = run.effects[0].name
    return shlex.join(
        ["cldistill", "generate", str(collection), *base, "--image", "cat.png", "--effect", effect, "-o", "out.png"]
    )
