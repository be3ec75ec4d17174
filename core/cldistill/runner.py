"""What ``cldistill run`` does: assemble, train, export, measure, show."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cldistill.assemble import assemble
from cldistill.closing import report_table, result_picture, run_figures, say_where
from cldistill.collection.export import export_collection
from cldistill.collection.round_trip import fixed_probe
from cldistill.data.items import list_pictures
from cldistill.display.display import Display
from cldistill.errors import Stopped
from cldistill.evaluate import EvaluationPlan, evaluate
from cldistill.evaluation.metrics import build_metrics
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.resolved import resolved_text
from cldistill.prepare import Workshop
from cldistill.progress.live import LiveStages
from cldistill.progress.signals import IN_LOOP, OUTSIDE_LOOP, StopRequest, graceful_stop
from cldistill.progress.stages import Stages, StoppableStages
from cldistill.samples import SampleGrids, Studio, general_rows, grid_picture, held_out_rows, systems_of
from cldistill.storage.files import atomic_write_text
from cldistill.training.metrics_log import MetricsLog
from cldistill.training.run import Run
from cldistill.training.train import final_weights, train
from cldistill.training.update import STUDENT

if TYPE_CHECKING:
    from PIL.Image import Image

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


def execute(
    checked: CheckedManifest, output: Path, console: Console, command: str, *, measure: bool = True,
    changed_plugins: bool = False,
) -> Outcome:  # fmt: skip
    """Run a checked manifest in ``output``; ``command`` is what resumes it.

    ``measure=False`` leaves out what ``evaluate:`` asks for: whoever calls measures the collection himself.
    ``changed_plugins``: go on from a checkpoint although plugins have changed since, and record it.
    """
    with graceful_stop() as stop:
        try:
            return _execute(checked, output, console, command, stop, measure, changed_plugins)
        except (Stopped, RuntimeError) as error:
            # Where one process has left, the others lose the connection at their next meeting.
            if not isinstance(error, Stopped) and not (stop and processes() > 1):
                raise
            if is_main():
                why = str(error) if isinstance(error, Stopped) else "stopped while waiting for another process"
                say_stopped(console, f"{why[0].upper()}{why[1:]}.", command)
            return Outcome(saved_step(output), finished=False)


def _execute(
    checked: CheckedManifest, output: Path, console: Console, command: str, stop: StopRequest, measure: bool,
    changed_plugins: bool,
) -> Outcome:  # fmt: skip
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    stages = LiveStages(console)
    stop.promise = OUTSIDE_LOOP
    observers = [MetricsLog(), Display(console)]
    run = assemble(checked, output, stages=stages, observers=observers, stop=lambda: bool(stop))
    run.changed_plugins = changed_plugins
    workshop: Workshop = run.extras["workshop"]
    if run.is_main:
        atomic_write_text(output / "manifest.resolved.yaml", run.resolved_manifest)
        for line in checked.teacher_lines():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
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
    return finish(run, checked, console, StoppableStages(stages, lambda: bool(stop)), started, measure)


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


def finish(
    run: Run, checked: CheckedManifest, console: Console, stages: Stages, started: float, measure: bool = True
) -> Outcome:
    """Export the collection, measure it, and print where everything lies."""
    weights, kind = final_weights(run, STUDENT)
    run.slots.load(STUDENT, weights)
    with stages.stage("exporting the collection", 1) as advance:
        collection = export_run(run, checked, weights, kind)
        advance(1)
    report: dict[str, Any] = {}
    picture = None
    if measure and checked.manifest.evaluate is not None:
        plan = evaluation_plan(run, checked)
        workshop: Workshop = run.extras["workshop"]
        found = evaluate(run, workshop.encoder, plan, workshop.cache / "evaluation", stages)
        report["systems"] = found.systems
        report["not_measured"] = dict(found.not_measured)
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
        manifest_digest=run.manifest_digest, steps=run.total_steps, samples=card_samples(run, checked),
    )  # fmt: skip


def card_samples(run: Run, checked: CheckedManifest) -> dict[str, Image]:
    """Let the student make one picture an effect for the collection's card, where the manifest shows it pictures."""
    shown = checked.manifest.samples or checked.manifest.evaluate
    if shown is None:
        return {}
    workshop: Workshop = run.extras["workshop"]
    studio, student = Studio(run, workshop.encoder), systems_of(run, 1)[-1]
    pictures = list_pictures(shown.images)
    return {
        effect.name: studio.pictures(
            student, held_out_rows([grid_picture(pictures, index)], effect, run.prompts[effect.name])
        )[0]
        for index, effect in enumerate(run.effects)
    }


def evaluation_plan(run: Run, checked: CheckedManifest) -> EvaluationPlan:
    """Build the metrics of ``evaluate:``."""
    wanted = checked.manifest.evaluate
    assert wanted is not None
    metrics, absent = build_metrics(checked.metrics, run.extras["context"])
    general = general_rows(wanted)
    return EvaluationPlan(wanted.images, wanted.pictures, wanted.teacher_steps, metrics, general, absent)
