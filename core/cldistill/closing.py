"""What a finished run shows: its picture, its figures, its table, and what to type next."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cldistill.collection.index import read_index
from cldistill.data.items import list_pictures, open_picture
from cldistill.evaluate import EvaluationPlan
from cldistill.prepare import Workshop
from cldistill.samples import PICTURES_OF_RESULT, Studio, held_out_rows, result_pictures, systems_of
from cldistill.sampling.grids import Row, save_grid
from cldistill.training.metrics_log import FILE, read_metrics
from cldistill.training.run import Run
from cldistill.training.step import peak_memory_mb
from cldistill.training.update import STUDENT


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
