"""``report.json`` of an evaluation, at the end of a run and by ``cldistill eval``: everything that was found, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from cldistill.adapters.header import find_file
from cldistill.adapters.hub import SNAPSHOT, pinned
from cldistill.records import FAILURE, FLOOR, GENERAL, HELD_PAIRS, probe_pool
from cldistill.storage.files import file_digest
from cldistill_plugins.evaluation.aggregate import Figures, PairedDifference, as_json, compare, floors, make_figures
from cldistill_plugins.evaluation.check import FILES, EvaluationPlan
from cldistill_plugins.evaluation.measure import Measured
from cldistill_plugins.evaluation.metrics import BuiltMetric, Reasons
from cldistill_plugins.evaluation.picture_placement import name_of
from cldistill_plugins.evaluation.pools import Pools
from cldistill_plugins.evaluation.provenance import provenance
from cldistill_plugins.evaluation.setup import EvaluationSetup
from cldistill_plugins.evaluation.systems import OpenedSystem

FORMAT = 1


@dataclass(frozen=True)
class Findings:
    """Systems, pools and answers of an evaluation, collected by the evaluator: `report_json` makes the report of them."""

    setup: EvaluationSetup
    plan: EvaluationPlan
    systems: Sequence[OpenedSystem]
    pools: Pools
    metrics: Sequence[BuiltMetric]
    measured: Measured
    not_measured: Reasons
    """Metrics that could not even be built."""
    left_out: Mapping[str, Sequence[str]]
    """System -> effects that its collection lacks."""


def report_json(found: Findings, command: str) -> dict[str, Any]:
    """Return the report; the README of the repository and `cldistill_plugins.evaluation.report.record` describe its keys."""
    figures = make_figures(found.metrics, found.measured)
    stochastic = stochastic_effects(found)
    effects = [effect.name for effect in found.pools.effects]
    names = [system.name for system in found.systems]
    known = {name for name in names if name in figures.series}
    per_pool = {name: figures.per_pool(name) for name in names if name in known}
    return {
        "format": FORMAT,
        "name": found.setup.checked.manifest.name,
        **provenance(command, found.plan.evaluate.seed),
        "effects": [_effect(found, name, stochastic.get(name)) for name in effects],
        "pictures": _names(found, effects[0]),
        "held_pairs": {
            name: _names(found, pool)
            for name in effects
            if (pool := probe_pool(name, HELD_PAIRS)) in found.pools.items
        },
        "systems": [_system(system, found.left_out.get(system.name, ())) for system in found.systems],
        "metrics": {
            name: {"title": shown.title, "better": shown.better, "component": component, "percent": shown.percent}
            for name, (component, shown) in figures.columns.items()
        },
        "not_measured": [
            {"component": name, "reason": why} for name, why in {**found.not_measured, **found.measured.not_measured}.items()
        ],
        "values": _values(figures, names, [*effects, GENERAL]),
        "summary": {name: {m: as_json(i) for m, i in figures.summary(name).items()} for name in names if name in known},
        "per_effect": _intervals(per_pool, effects),
        "general": {
            "items": _names(found, GENERAL),
            "summary": {name: pools[GENERAL] for name, pools in _intervals(per_pool, [GENERAL]).items()},
        },
        "probes": {
            "pictures": _names(found, found.pools.probes[0]) if found.pools.probes else [],
            "values": _values(figures, names, found.pools.probes),
            "per_pool": _intervals(per_pool, found.pools.probes),
        },
        "floors": {metric: as_json(interval) for metric, interval in floors(figures).items()},
        "failures": _failures(found),
        "comparisons": [_comparison(one) for one in comparisons(found, figures, stochastic)],
        "not_run": [entry.model_dump() for entry in found.plan.not_run],
    }  # fmt: skip


def stochastic_effects(found: Findings) -> dict[str, bool]:
    """Return which effects draw: as the manifest says, else as the first metric says that knows."""
    named = found.plan.evaluate.stochastic
    if named is not None:
        return {effect.name: effect.name in named for effect in found.pools.effects}
    told: dict[str, bool] = {}
    for effect in found.pools.effects:
        asked = (built.stochastic.stochastic(effect.name) for built in found.metrics if built.stochastic is not None)
        answer = next((answer for answer in asked if answer is not None), None)
        if answer is not None:
            told[effect.name] = answer
    return told


def comparisons(found: Findings, figures: Figures, stochastic: Mapping[str, bool]) -> list[PairedDifference]:
    """Compare the pairs that the manifest names: on all effects, and on those that draw where there are others, too."""
    drawing = {name for name, draws in stochastic.items() if draws}
    made: list[PairedDifference] = []
    for a, b in found.plan.evaluate.compare:
        made += compare(figures, a, b)
        if drawing and drawing != {effect.name for effect in found.pools.effects}:
            made += compare(figures, a, b, drawing, "stochastic")
    return made


def _names(found: Findings, pool: str) -> list[str]:
    return [name_of(item) for item in found.pools.items.get(pool, ())]


def _effect(found: Findings, name: str, stochastic: bool | None) -> dict[str, Any]:
    prompts = found.setup.prompts[name]
    return {
        "name": name, "prompt": prompts.teacher, "student_prompt": prompts.student, "trigger": prompts.trigger,
        "stochastic": stochastic,
    }  # fmt: skip


def _system(system: OpenedSystem, left_out: Sequence[str]) -> dict[str, Any]:
    spec = system.spec
    lacking = f"without {', '.join(left_out)}: not in its collection" if left_out else ""
    return {
        "name": spec.name,
        "title": spec.title or spec.name,
        "evaluations": system.evaluations,
        "steps": system.schedule.steps,
        "sampler": "few-step" if spec.few_step else "euler",
        "note": "; ".join(filter(None, (spec.note, lacking))),
        "adapters": {key: _adapter(getattr(spec, field)) for field, key in FILES if getattr(spec, field) is not None},
    }


def _adapter(value: Path | str) -> str:
    """Say what is mounted without a path of this machine: ``teacher``, or the file's hash, after its hub id if it has one."""
    if isinstance(value, str):
        return value
    hub = f"{pinned(value)} " if SNAPSHOT.search(value.as_posix()) else ""
    return f"{hub}sha256:{file_digest(find_file(value))}"


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _values(figures: Figures, systems: Sequence[str], pools: Sequence[str]) -> dict[str, Any]:
    """Return ``{system: {pool: {metric: [value a picture]}}}``; ratios and figures of a whole set have none."""
    found: dict[str, Any] = {}
    for system in systems:
        for metric, own in figures.series.get(system, {}).items():
            for pool in pools:
                if pool in own and own[pool].top and own[pool].bottom is None:
                    found.setdefault(system, {}).setdefault(pool, {})[metric] = _finite(own[pool].top)
    return found


def _intervals(per_pool: Mapping[str, Mapping[str, Any]], pools: Sequence[str]) -> dict[str, Any]:
    made = {
        system: {pool: {m: as_json(i) for m, i in own[pool].items()} for pool in pools if pool in own}
        for system, own in per_pool.items()
    }
    return {system: own for system, own in made.items() if own}


def _failures(found: Findings) -> dict[str, Any]:
    """Return ``{system: {effect: {picture: family}}}``; where several metrics have a word, the first one counts."""
    failures: dict[str, Any] = {}
    effects = {effect.name for effect in found.pools.effects}
    for system, pools in chain.from_iterable(answer.items() for answer in found.measured.answers.values()):
        for pool, values in pools.items():
            if system == FLOOR or pool not in effects:
                continue
            tags = values.tags.get(FAILURE, ())
            for name, tag in zip(_names(found, pool), tags, strict=False):
                if tag is not None:
                    failures.setdefault(system, {}).setdefault(pool, {}).setdefault(name, tag)
    return failures


def _comparison(one: PairedDifference) -> dict[str, Any]:
    return {
        "a": one.a, "b": one.b, "metric": one.metric, "effects": one.effects, **as_json(one.difference),
        "clear": one.difference.clear_of_zero, "ratio": None if one.ratio is None else as_json(one.ratio),
    }  # fmt: skip
