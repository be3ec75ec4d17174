"""The evaluator: systems edit the held-out pictures, metrics measure them, and a report says what came out.

`evaluate_manifest` is ``cldistill eval``; `evaluate_systems` is the part that the end of a run shares with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from cldistill.errors import Stopped
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.prompts import dry_context
from cldistill.progress.live import LiveStages
from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
from cldistill.progress.stages import Stages, StoppableStages
from cldistill.protocols import PromptIsolator
from cldistill.storage.files import atomic_write_text, default_cache, only_writer
from cldistill_plugins.evaluation.check import EvaluationPlan, teachers_asked_for
from cldistill_plugins.evaluation.markdown import markdown
from cldistill_plugins.evaluation.measure import measure
from cldistill_plugins.evaluation.metrics import BuiltMetric
from cldistill_plugins.evaluation.picture_placement import place_outputs, place_sources, place_truths
from cldistill_plugins.evaluation.picture_store import PictureStore
from cldistill_plugins.evaluation.pictures import Job, make_pictures, share_of
from cldistill_plugins.evaluation.pools import Pools, make_pools
from cldistill_plugins.evaluation.report.embedding import LIMIT_MEGABYTES
from cldistill_plugins.evaluation.report.html import write_page
from cldistill_plugins.evaluation.report.page import lacking
from cldistill_plugins.evaluation.report.record import Evaluation
from cldistill_plugins.evaluation.report_json import Findings, report_json
from cldistill_plugins.evaluation.request import EvaluationRequest, VaeReconstruction
from cldistill_plugins.evaluation.setup import EvaluationSetup, load_setup
from cldistill_plugins.evaluation.systems import OpenedSystem, open_systems
from cldistill_plugins.evaluation.values import ValueStore
from cldistill_plugins.sharding.api import WHOLE, Shard

PICTURES = "pictures"
REPORT = "report.json"


@dataclass(frozen=True)
class Evaluated:
    """The end of an evaluation, finished or stopped: returned by `evaluate_manifest` to the commands that evaluate."""

    finished: bool
    report: Path | None = None
    made: int = 0
    """Pictures that had to be made."""


def evaluate_manifest(
    checked: CheckedManifest, plan: EvaluationPlan, output: Path, console: Console, command: str, again: str,
    shard: Shard = WHOLE,
) -> Evaluated:  # fmt: skip
    """Evaluate a checked manifest into ``output``; ``command`` is written into the report, ``again`` goes on after a stop.

    A ``shard`` makes its share of the pictures into the cache and leaves ``output`` alone; nothing is measured.
    """
    store = picture_store(default_cache())
    with only_writer(output) if shard == WHOLE else nullcontext(), graceful_stop() as stop:
        stop.promise = OUTSIDE_LOOP
        stages = StoppableStages(LiveStages(console), lambda: bool(stop))
        try:
            _evaluate(checked, plan, output, store, stages, lambda: bool(stop), command, shard)
        except Stopped as error:
            text = f"{str(error)[0].upper()}{str(error)[1:]}"
            console.print(f"{text}. Go on with:\n  {again}", markup=False, highlight=False, soft_wrap=True)
            return Evaluated(False, made=store.written)
    return Evaluated(True, output / REPORT if shard == WHOLE else None, store.written)


def _evaluate(
    checked: CheckedManifest, plan: EvaluationPlan, output: Path, store: PictureStore, stages: Stages,
    stop: Callable[[], bool], command: str, shard: Shard,
) -> None:  # fmt: skip
    teachers = teachers_asked_for(plan.systems, [effect.name for effect in checked.effects])
    setup = load_setup(
        checked, output, default_cache(), stages, stop, teachers=teachers, seed=plan.evaluate.seed, train=shard == WHOLE
    )
    systems = open_systems(setup, plan.systems)
    if shard != WHOLE:
        jobs = plan_jobs(setup, plan, systems, setup.metrics[0])[1]
        make_pictures(setup.generator, share_of(jobs, shard, setup.generator.encoder, stages), store, stages)
        return
    report = evaluate_systems(setup, plan, systems, output, store, stages, command)
    atomic_write_text(output / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_pages(output, report, stages)


def picture_store(cache: Path) -> PictureStore:
    """Return the store that all evaluations share."""
    return PictureStore(cache / "evaluation" / PICTURES)


def evaluate_systems(
    setup: EvaluationSetup, plan: EvaluationPlan, systems: Sequence[OpenedSystem], output: Path, store: PictureStore,
    stages: Stages, command: str,
) -> dict[str, Any]:  # fmt: skip
    """Return the report, with every picture placed below ``output/pictures``; what the cache holds is not made again."""
    metrics, absent = setup.metrics
    pools, jobs = plan_jobs(setup, plan, systems, metrics)
    asked = {(job.system, job.pool) for job in jobs}
    outputs = make_pictures(setup.generator, jobs, store, stages)
    place_outputs(output / PICTURES, outputs, pools.items)
    place_sources(output / PICTURES, outputs, pools.items, store)
    reference = next((system.name for system in systems if system.is_reference), None)
    folder = setup.context.cache / "evaluation"
    request = EvaluationRequest(
        setup.checked.effects, setup.prompts, pools.items, outputs, reference, folder, VaeReconstruction(setup.base),
        ValueStore(folder / "values.sqlite"),
    )  # fmt: skip
    measured = measure(metrics, request, stages)
    able = [built for built in metrics if built.name in measured.answers]
    place_truths(output / PICTURES, request, able, store, stages)
    left_out = {
        system.name: [e.name for e in pools.effects if system.is_asked(e.name) and (system.name, e.name) not in asked]
        for system in systems
    }
    return report_json(Findings(setup, plan, systems, pools, metrics, measured, absent, left_out), command)


def plan_jobs(
    setup: EvaluationSetup, plan: EvaluationPlan, systems: Sequence[OpenedSystem], metrics: Sequence[BuiltMetric]
) -> tuple[Pools, list[Job]]:
    """Return the held-out items, and each system's work on each pool: the same list in every process."""
    pools = _pools(setup, plan, systems, [probe for built in metrics for probe in built.probes])
    return pools, [
        Job(system.name, pool, rows, lambda system=system, pool=pool: system.config(pool))  # type: ignore[misc]
        for system in systems
        for pool, rows in pools.rows(system).items()
    ]


def write_pages(output: Path, report: Mapping[str, Any], stages: Stages, limit: float = LIMIT_MEGABYTES) -> None:
    """Write ``report.md`` and, where its libraries are installed, ``report.html`` of a report whose pictures are placed.

    ``limit``: see `write_report`.
    """
    with stages.stage("writing the report", 1) as advance:
        atomic_write_text(output / "report.md", markdown(report))
        if lacking() is None:
            write_page(output, Evaluation.model_validate(report), limit)
        advance(1)


def _pools(
    setup: EvaluationSetup, plan: EvaluationPlan, systems: Sequence[OpenedSystem], probes: Sequence[str]
) -> Pools:
    known = {prompts.trigger for prompts in setup.prompts.values()}
    known |= {effect.trigger for one in systems if one.index is not None for effect in one.index.effects}
    # Dry: only the trigger of an effect that does not exist is wanted, no caption by a remote model.
    isolator: PromptIsolator = setup.checked.prompts.build(dry_context(setup.checked))
    return make_pools(plan.evaluate, setup.checked.effects, probes, isolator, known)
