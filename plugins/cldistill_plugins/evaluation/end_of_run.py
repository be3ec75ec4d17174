"""After training: every system of a run edits the held-out pictures, every metric looks, and a report says what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from cldistill.data.encodings import Encoder
from cldistill.data.items import list_pictures, open_picture
from cldistill.markers import hookimpl
from cldistill.progress.stages import Stages
from cldistill.records import FLOOR, GENERAL, MetricValues
from cldistill.samples import (
    PICTURES_OF_RESULT,
    RunSampler,
    System,
    general_rows,
    held_out_rows,
    result_pictures,
    systems_of,
)
from cldistill.sampling.generator import Row, slot_digest
from cldistill.sampling.grids import Row as GridRow
from cldistill.sampling.grids import save_grid
from cldistill.storage.files import atomic_write_text
from cldistill.storage.values import ValueStore
from cldistill.training.run import ExportedRun, Run
from cldistill.training.update import STUDENT, TEACHER
from cldistill_plugins.evaluation.measure import measure
from cldistill_plugins.evaluation.metrics import BuiltMetric, build_metrics
from cldistill_plugins.evaluation.picture_store import PictureStore
from cldistill_plugins.evaluation.pictures import Job, make_pictures
from cldistill_plugins.evaluation.request import Mirror, Request

PER_PICTURE = "per_picture.json"
"""Every value behind ``report.json``, for intervals and comparisons of two runs picture by picture."""


class EndOfRun:
    """The observer that measures a run on held-out pictures once its collection is on disk."""

    @hookimpl
    def run_exported(self, run: Run, exported: ExportedRun) -> None:
        """Measure what ``evaluate:`` asks for, and draw the run's picture."""
        prepared, wanted = exported.preparation, exported.checked.manifest.evaluate
        if wanted is None:
            return
        metrics, absent = build_metrics(exported.checked.metrics, prepared.context)
        plan = EvaluationPlan(
            wanted.images, wanted.pictures, wanted.teacher_steps, metrics, general_rows(wanted), absent
        )
        found = evaluate(run, prepared.encoder, plan, prepared.cache / "evaluation", prepared.stages)
        exported.report |= {"systems": found.systems, "not_measured": dict(found.not_measured)}
        atomic_write_text(run.output / PER_PICTURE, json.dumps(found.per_picture) + "\n")
        exported.results.append(("Picture", result_picture(run, plan, prepared.encoder, run.output / "result.png")))
        exported.console.print(report_table(found.systems))


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured."""

    images: Path
    pictures: int
    teacher_steps: int
    metrics: Sequence[BuiltMetric]
    general: Sequence[Row] = ()
    """Held-out general instructions."""
    not_measured: Mapping[str, str] = field(default_factory=dict)
    """Metrics that cannot measure here, and why."""


@dataclass(frozen=True)
class Evaluation:
    """What was found: the report's figures, and every value behind them."""

    systems: dict[str, Any]
    """``{system: {evaluations, effects: {effect: {metric: value}}, general: ..., mean: ...}}``."""
    per_picture: dict[str, Any]
    """``{pictures: {pool: [key]}, values: {system: {pool: {metric: [value]}}}}``: what intervals are computed from."""
    not_measured: Mapping[str, str]
    """Metric -> why it was not measured."""


def evaluate(run: Run, encoder: Encoder, plan: EvaluationPlan, cache: Path, stages: Stages) -> Evaluation:
    """Let every system edit the held-out pictures, and every metric measure what came out."""
    rows = evaluation_rows(run, plan)
    systems = systems_of(run, plan.teacher_steps)
    studio, student = RunSampler(run, encoder), slot_digest(run.slots, STUDENT)
    jobs = [
        Job(system.name, pool, rows[pool], partial(studio.way, system, pool, student))
        for system in systems
        for pool in rows
        if pool in pools_of(system, rows)
    ]
    made = make_pictures(studio.painter, jobs, PictureStore(cache / "pictures"), stages)
    items = {pool: [item for item, _ in entries] for pool, entries in rows.items()}
    request = Request(
        run.effects, run.prompts, items, made, "base", cache, Mirror(run.base), ValueStore(cache / "values.sqlite")
    )
    measured = measure(plan.metrics, request, stages)
    found: dict[str, dict[str, list[MetricValues]]] = {s: {pool: [] for pool in pools} for s, pools in made.items()}
    for answer in measured.answers.values():
        for system, pools in answer.items():
            for pool, values in pools.items() if system != FLOOR else ():
                found[system][pool].append(values)
    return Evaluation(
        {system.name: summarise(system, found.get(system.name, {})) for system in systems},
        {"pictures": {pool: [item.key for item in own] for pool, own in items.items()}, "values": values_of(found)},
        {**plan.not_measured, **measured.not_measured},
    )


def values_of(found: Mapping[str, Mapping[str, Sequence[MetricValues]]]) -> dict[str, Any]:
    """Return ``{system: {pool: {metric: [value a picture]}}}``."""
    return {
        system: {
            pool: {k: list(v) for result in results for k, v in result.per_picture.items()}
            for pool, results in p.items()
        }
        for system, p in found.items()
    }


def evaluation_rows(run: Run, plan: EvaluationPlan) -> dict[str, list[Row]]:
    """List what is edited: held-out pictures under every effect, and held-out general instructions."""
    pictures = list_pictures(plan.images)[: plan.pictures]
    rows = {e.name: held_out_rows(pictures, e, run.prompts[e.name]) for e in run.effects}
    if plan.general:
        rows[GENERAL] = list(plan.general)
    return rows


def pools_of(system: System, rows: Mapping[str, object]) -> set[str]:
    """Return the pools that a system is measured on: the base the general one, teachers their effects, the student all."""
    if system.slot is None:
        return {GENERAL} & set(rows)
    return set(rows) - {GENERAL} if system.slot == TEACHER else set(rows)


def summarise(system: System, pools: Mapping[str, Sequence[MetricValues]]) -> dict[str, Any]:
    """Merge what the metrics found for one system into its entry of the report."""
    values = {pool: merge_values(results) for pool, results in pools.items()}
    effects = {pool: found for pool, found in values.items() if pool != GENERAL}
    entry: dict[str, Any] = {"evaluations": system.evaluations, "effects": effects}
    if GENERAL in values:
        entry[GENERAL] = values[GENERAL]
    entry["mean"] = {**mean_over(effects), **values.get(GENERAL, {})}
    return entry


def merge_values(results: Sequence[MetricValues]) -> dict[str, float]:
    """Average each metric over pictures; a figure of the whole set wins over the mean of its name."""
    merged: dict[str, float] = {}
    for result in results:
        for name, values in result.per_picture.items():
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                merged[name] = fmean(finite)
        merged.update(result.summary)
        for name, ratio in result.ratios.items():
            merged[name] = fmean(ratio.numerator) / fmean(ratio.denominator)
    return merged


def mean_over(effects: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average each metric over the effects that have it."""
    names = sorted({name for values in effects.values() for name in values})
    return {name: fmean(values[name] for values in effects.values() if name in values) for name in names}


def result_picture(run: Run, plan: EvaluationPlan, encoder: Encoder, path: Path) -> Path:
    """Draw the run's picture: each effect by its own teacher and by the one student, on two held-out pictures."""
    studio = RunSampler(run, encoder)
    _, teacher, _, student = systems_of(run, plan.teacher_steps)
    pictures = list_pictures(plan.images)
    rows = []
    for index, effect in enumerate(run.effects):
        chosen = result_pictures(pictures, index)
        items = held_out_rows(chosen, effect, run.prompts[effect.name])
        by_teacher, by_student = studio.pictures(teacher, items), studio.pictures(student, items)
        cells = [x for i, p in enumerate(chosen) for x in (open_picture(p), by_teacher[i], by_student[i])]
        rows.append(GridRow(effect.name, cells))
    columns = [
        "source",
        f"its own LoRA\n{teacher.evaluations} evaluations",
        f"one LoRA\n{student.evaluations} evaluations",
    ]
    save_grid(path, rows, columns * PICTURES_OF_RESULT, f"{run.name}: {len(run.effects)} effects in one LoRA")
    return path


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
