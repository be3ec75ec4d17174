"""What ``cldistill eval`` does: assemble, make pictures, measure, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cldistill.errors import Stopped
from cldistill.manifest.checked import CheckedManifest, default_cache
from cldistill.manifest.prompts import dry_context
from cldistill.progress.live import LiveStages
from cldistill.progress.signals import OUTSIDE_LOOP, graceful_stop
from cldistill.progress.stages import Stages, StoppableStages
from cldistill.protocols import PromptIsolator
from cldistill.sampling.generator import Row
from cldistill.storage.files import atomic_write_text
from cldistill.storage.values import ValueStore
from cldistill_plugins.evaluation.check import Entry, needs_teachers
from cldistill_plugins.evaluation.markdown import markdown
from cldistill_plugins.evaluation.measure import measure
from cldistill_plugins.evaluation.metrics import build_metrics
from cldistill_plugins.evaluation.picture_store import PictureStore
from cldistill_plugins.evaluation.pictures import Job, Outputs, make_pictures
from cldistill_plugins.evaluation.place_pictures import place_outputs, place_sources, place_truths
from cldistill_plugins.evaluation.pools import Pools, make_pools
from cldistill_plugins.evaluation.report.html import write_report
from cldistill_plugins.evaluation.report.page import lacking
from cldistill_plugins.evaluation.report_json import Findings, report_json
from cldistill_plugins.evaluation.request import Mirror, Request
from cldistill_plugins.evaluation.setup import Bench, make_bench
from cldistill_plugins.evaluation.systems import Contestant, contestants

PICTURES = "pictures"
REPORT = "report.json"


@dataclass(frozen=True)
class Evaluated:
    """Where an evaluation ended."""

    finished: bool
    report: Path | None = None
    made: int = 0
    """Pictures that had to be made."""


def evaluate_manifest(
    checked: CheckedManifest, entry: Entry, output: Path, console: Console, command: str, again: str
) -> Evaluated:
    """Evaluate a checked manifest into ``output``; ``command`` is written into the report, ``again`` goes on after a stop."""
    cache = default_cache()
    store = PictureStore(cache / "evaluation" / PICTURES)
    with graceful_stop() as stop:
        stop.promise = OUTSIDE_LOOP
        stages = StoppableStages(LiveStages(console), lambda: bool(stop))
        try:
            _evaluate(checked, entry, output, cache, store, stages, lambda: bool(stop), command)
        except Stopped as error:
            text = f"{str(error)[0].upper()}{str(error)[1:]}"
            console.print(f"{text}. Go on with:\n  {again}", markup=False, highlight=False, soft_wrap=True)
            return Evaluated(False, made=store.written)
    return Evaluated(True, output / REPORT, store.written)


def _evaluate(
    checked: CheckedManifest, entry: Entry, output: Path, cache: Path, store: PictureStore, stages: Stages,
    stop: Callable[[], bool], command: str,
) -> None:  # fmt: skip
    bench = make_bench(
        checked, output, cache, stages, stop, teachers=needs_teachers(entry.systems), seed=entry.evaluate.seed
    )
    systems = contestants(bench, entry.systems)
    metrics, absent = build_metrics(checked.metrics, bench.context)
    pools = _pools(bench, entry, systems, [probe for built in metrics for probe in built.probes])
    rows = {contestant.name: pools.rows(contestant) for contestant in systems}
    outputs = make_pictures(bench.generator, _jobs(systems, rows), store, stages)
    place_outputs(output / PICTURES, outputs, pools.items)
    place_sources(output / PICTURES, outputs, pools.items, store)
    request = _request(bench, pools, outputs, systems, cache)
    measured = measure(metrics, request, stages)
    place_truths(output / PICTURES, request, metrics, store, stages)
    asked = {one.name: one.spec.effects for one in systems}
    left_out = {
        name: [e.name for e in pools.effects if e.name not in known and e.name in (asked[name] or (e.name,))]
        for name, known in rows.items()
    }
    found = Findings(bench, entry, systems, pools, metrics, measured, absent, left_out)
    with stages.stage("writing the report", 1) as advance:
        write(output, found, command)
        advance(1)


def write(output: Path, found: Findings, command: str) -> None:
    """Write ``report.json``, ``report.md`` and, where its libraries are installed, ``report.html``."""
    report = report_json(found, command)
    atomic_write_text(output / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
    atomic_write_text(output / "report.md", markdown(report))
    if lacking() is None:
        write_report(output)


def _pools(bench: Bench, entry: Entry, systems: Sequence[Contestant], probes: Sequence[str]) -> Pools:
    known = {prompts.trigger for prompts in bench.prompts.values()}
    known |= {effect.trigger for one in systems if one.index is not None for effect in one.index.effects}
    # Dry: only the trigger of an effect that does not exist is wanted, no caption by a remote model.
    isolator: PromptIsolator = bench.checked.prompts.build(dry_context(bench.checked))
    return make_pools(entry.evaluate, bench.checked.effects, probes, isolator, known)


def _jobs(systems: Sequence[Contestant], rows: dict[str, dict[str, list[Row]]]) -> list[Job]:
    return [
        Job(contestant.name, pool, own, lambda contestant=contestant, pool=pool: contestant.config(pool))  # type: ignore[misc]
        for contestant in systems
        for pool, own in rows[contestant.name].items()
    ]


def _request(bench: Bench, pools: Pools, outputs: Outputs, systems: Sequence[Contestant], cache: Path) -> Request:
    reference = next((contestant.name for contestant in systems if contestant.is_reference), None)
    folder = cache / "evaluation"
    return Request(
        bench.checked.effects, bench.prompts, pools.items, outputs, reference, folder, Mirror(bench.base),
        ValueStore(folder / "values.sqlite"),
    )  # fmt: skip
