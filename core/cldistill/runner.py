"""The course of ``cldistill run``: assemble, train, export, measure, show."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cldistill.assemble import assemble
from cldistill.collection.export import export_collection
from cldistill.collection.index import read_index
from cldistill.collection.round_trip import fixed_probe
from cldistill.component import BuildContext
from cldistill.data.items import list_pictures
from cldistill.errors import NonFiniteError, Stopped, readable
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.resolved import resolved_text
from cldistill.manifest.rules import unserved
from cldistill.prepare import Preparation
from cldistill.progress.live import LiveStages
from cldistill.progress.program import program, shown
from cldistill.progress.signals import IN_LOOP, OUTSIDE_LOOP, StopRequest, graceful_stop
from cldistill.progress.stages import Stages, StoppableStages
from cldistill.records import STUDENT, Change
from cldistill.samples import RunSampler, shown_rows, teacher_and_student
from cldistill.storage.files import atomic_write_text, only_writer
from cldistill.training.metrics_log import FILE, MetricsLog, read_metrics
from cldistill.training.observers import Observers, warn
from cldistill.training.run import ExportedRun, Run
from cldistill.training.step import peak_memory_mb
from cldistill.training.train import final_weights, train

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Outcome:
    """The end of a run: its step, and its collection and report where it finished."""

    step: int
    finished: bool
    collection: Path | None = None
    report: Path | None = None


def execute(
    checked: CheckedManifest, output: Path, console: Console, command: str, *, leave_out: Collection[str] = (),
    may_change: Collection[Change] = (),
) -> Outcome:  # fmt: skip
    """Run a checked manifest in ``output``; ``command`` is what resumes it.

    ``leave_out``: automatic observers that the caller does not want, because it measures the collection itself, say.
    ``may_change``: go on from a checkpoint although plugins, or the number of ranks, are others, and record it.
    """
    alone = only_writer(output) if is_main() else nullcontext()  # of several processes, the first one writes
    with alone, graceful_stop() as stop:
        try:
            return _execute(checked, output, console, command, stop, leave_out, may_change)
        except (Stopped, RuntimeError) as error:
            # Where one process has left, the others lose the connection at their next meeting.
            if not isinstance(error, Stopped) and not (stop and int(os.environ.get("WORLD_SIZE", "1")) > 1):
                raise
            if is_main():
                why = str(error) if isinstance(error, Stopped) else "stopped while waiting for another process"
                say_stopped(console, f"{why[0].upper()}{why[1:]}.", command)
            saved = (int(path.name.removeprefix("step-")) for path in (output / "checkpoints").glob("step-*"))
            return Outcome(max(saved, default=0), finished=False)


def _execute(
    checked: CheckedManifest, output: Path, console: Console, command: str, stop: StopRequest, leave_out: Collection[str],
    may_change: Collection[Change],
) -> Outcome:  # fmt: skip
    started, stages = time.monotonic(), LiveStages(console)
    output.mkdir(parents=True, exist_ok=True)
    stop.promise = OUTSIDE_LOOP
    watch = lambda context: observers_of(checked, replace(context, console=console), leave_out)  # noqa: E731
    run = assemble(checked, output, stages=stages, observers=watch, stop=lambda: bool(stop))
    run.may_change = may_change
    if run.is_main:
        atomic_write_text(output / "manifest.resolved.yaml", resolved_text(checked))
        for line in [*checked.file_lines(), *unserved(checked)]:
            console.print(readable(line), soft_wrap=True, markup=False, highlight=False)
    for plugin in checked.catalogue.plugins.loaded:
        plugin.run_assembled(run=run)
    stop.promise = IN_LOOP
    step = train(run, stop)
    if step < run.total_steps:
        if run.is_main:
            say_stopped(console, f"Stopped after step {step} of {run.total_steps}; everything is saved.", command)
        return Outcome(step, finished=False)
    stop.promise = OUTSIDE_LOOP
    with run.alone():
        if not run.is_main:
            return Outcome(step, finished=True)
        return finish(run, checked, console, command, StoppableStages(stages, lambda: bool(stop)), started)


def is_main() -> bool:
    """Return whether this is the process that speaks; also known where the run was left before it was assembled."""
    return int(os.environ.get("RANK", "0")) == 0


def say_stopped(console: Console, text: str, command: str) -> None:
    """Say how far the run came, and the command that goes on, as it can be copied: neither wrapped nor interpreted."""
    console.print(f"{text} Go on with:\n  {command}", markup=False, highlight=False, soft_wrap=True)


def prepared(run: Run) -> Preparation:
    """Return what an assembled run was prepared with."""
    assert run.preparation is not None
    return run.preparation


def observers_of(checked: CheckedManifest, context: BuildContext, leave_out: Collection[str]) -> list[object]:
    """Build the log of the steps, the observers that the manifest names, and those that every run gets."""
    named = [part for part in checked.observers if part.name not in leave_out]
    known = {part.name for part in checked.observers} | set(leave_out)
    automatic = [e.component for e in checked.catalogue if e.component.automatic and e.component.name not in known]
    built = [part.build(context) for part in named] + [part.build(part.settings(), context) for part in automatic]
    return [MetricsLog(), *built]


def finish(
    run: Run, checked: CheckedManifest, console: Console, command: str, stages: Stages, started: float
) -> Outcome:
    """Export the collection, let the observers measure it, and print where everything lies."""
    require_good_updates(run)
    weights, kind = final_weights(run, STUDENT)
    run.slots.load(STUDENT, weights)
    with stages.stage("exporting the collection", 1) as advance:
        collection = export_run(run, checked, weights, kind)
        advance(1)
    preparation = replace(prepared(run), stages=stages)
    exported = ExportedRun(checked, preparation, collection, console, command, {}, [])
    errors = Observers(run).run_exported(exported)
    path = run.output / "report.json"
    atomic_write_text(path, json.dumps({**exported.report, "run": run_figures(run, started)}, indent=1) + "\n")
    say_where(console, run, exported, path)
    if errors:  # said last: the collection and what others measured are safe by now
        raise errors[0]
    return Outcome(run.total_steps, True, collection, path)


def require_good_updates(run: Run) -> None:
    """Refuse, by a NonFiniteError, to export what learnt nothing of an effect; warn of one that the router never drew."""
    records = read_metrics(run.output / FILE)
    updates = [update for record in records for update in record["updates"] if update["slot"] == STUDENT]
    good = {pool for update in updates if not update["skipped"] for pool in update["pools"]}
    missing = [effect.name for effect in run.effects if effect.name not in good]
    if lost := [name for name in missing if any(name in update["pools"] for update in updates)]:
        raise NonFiniteError(
            f"no update on {', '.join(lost)} was good: each had a loss or gradient that is not finite, so the student never "
            "learnt it and nothing is exported; look for the cause in its pictures, its teacher's file, and metrics.jsonl, "
            "then begin anew (--fresh)"
        )
    if missing:
        warn(run, f"{', '.join(missing)}: never drawn in {run.total_steps} steps, so the student does not know it")


def export_run(run: Run, checked: CheckedManifest, weights: Mapping[str, Any], kind: str) -> Path:
    """Write ``OUT/collection``."""
    probe = fixed_probe(run.base, run.prompts[run.effects[0].name].student, prepared(run).encoder.cache)
    run.base.drop_encoders()  # they came back only if the cache was emptied meanwhile
    taught = [effect.name for effect in run.effects if effect.name not in checked.needless_teachers]
    return export_collection(
        run.output / "collection", base=run.base, slots=run.slots, slot=STUDENT, weights=weights,
        weights_kind=kind, effects=run.effects, prompts=run.prompts,
        schedule=run.schedule, title=run.name, resolved_manifest=resolved_text(checked, portable=True),
        base_part=(checked.base.name, checked.base.settings.model_dump(mode="json")),
        teacher_digests={n: run.teachers.digest(n) or "base" for n in taught}, probe=probe,
        manifest_digest=run.manifest_digest, steps=run.total_steps, samples=card_samples(run, checked),
    )  # fmt: skip


def card_samples(run: Run, checked: CheckedManifest) -> dict[str, Image]:
    """Let the student make one picture an effect for the collection's card, where the manifest shows it pictures."""
    shown = checked.manifest.samples or checked.manifest.evaluate
    if shown is None:
        return {}
    sampler, student = RunSampler(run, prepared(run).encoder), teacher_and_student(run, 1)[1]
    pictures = list_pictures(shown.images)
    return {
        effect.name: sampler.pictures(student, shown_rows(effect, run.prompts[effect.name], pictures, index))[0]
        for index, effect in enumerate(run.effects)
    }


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
    """Return whether a step of the log ran every loss of the student, and an update of every other slot that trains."""
    slots = {update["slot"] for update in record["updates"]}
    wanted = {term.name for term in run.terms if term.slot == STUDENT}
    ran = {name for update in record["updates"] if update["slot"] == STUDENT for name in update["losses"]}
    return slots >= {term.slot for term in run.terms} and ran >= wanted


def say_where(console: Console, run: Run, exported: ExportedRun, report: Path) -> None:
    """Print the paths and the command that tries the collection on one's own picture."""
    command = generate_command(run, exported)
    places = [("Report", report), ("Collection", exported.collection), *exported.results, ("Try it", command)]
    for label, what in places:
        console.print(f"{label + ':':<11} {what}", markup=False, highlight=False, soft_wrap=True)


def generate_command(run: Run, exported: ExportedRun) -> str:
    """Return a command that edits a picture that exists; a base in a local folder, which no collection names, is given."""
    collection, model = exported.collection, getattr(exported.checked.base.settings, "model", None)
    local = isinstance(model, str | Path) and Path(model).is_absolute()
    base = ["--base", str(model)] if local and "model" not in read_index(collection).base_options else []
    checked = exported.checked
    new = [effect.name for effect in run.effects if effect.name not in checked.settled_prompts]  # not learnt before
    effect = new[0] if new else run.effects[0].name
    held_out = checked.manifest.evaluate or checked.manifest.samples
    seen = list_pictures(held_out.images) if held_out else [item.sources[0] for item in checked.items.get(effect, ())]
    picture = shown(seen[0]) if seen else "PICTURE.png"
    words = ["generate", str(collection), *base, "--image", picture, "--effect", effect, "-o", "out.png"]
    return shlex.join([*program(), *words])
