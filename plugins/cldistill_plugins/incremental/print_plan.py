"""The plan of a growing run, printed before it starts (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.prompts import preview_prompts
from cldistill.progress.live import duration
from cldistill.records import GENERAL, STUDENT
from cldistill.training.metrics_log import FILE, read_metrics
from cldistill_plugins.incremental.prepare import Prepared
from cldistill_plugins.planning.api import cycles

SHOWN = 6
"""Old effects that are named one by one; fifty are a number."""


def print_growth(prepared: Prepared, console: Console) -> None:
    """Print old and new effects, what teaches what, the run, and its cost."""
    checked, growth = prepared.checked, prepared.growth
    old, new = len(growth.collection.index.effects), len(growth.new)
    console.print(
        f"[bold]Growing {escape(growth.collection.index.title)}[/]: {old} effects + {new} = {old + new}",
        highlight=False,
    )
    console.print(_effects(prepared))
    for line in (*_run(checked), *_start(prepared), *_cost(prepared), *(f"Note: {note}" for note in prepared.notes)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _effects(prepared: Prepared) -> Table:
    table = Table("", "effect", "the student hears", "taught by", "shown on", box=SIMPLE_HEAD, pad_edge=False)
    prompts, names = preview_prompts(prepared.checked), [effect.name for effect in prepared.growth.new]
    old = [effect for effect in prepared.checked.effects if effect.name not in names]
    sampler = prepared.growth.collection.index.steps
    for effect in old[:SHOWN]:
        told = prompts[effect.name].student
        table.add_row(
            "old", effect.name, escape(told), f"the collection, {sampler} steps", _pictures(prepared, effect.name)
        )
    if len(old) > SHOWN:
        table.add_row("old", f"… and {len(old) - SHOWN} more", "", f"the collection, {sampler} steps", "")
    for effect in (effect for effect in prepared.checked.effects if effect.name in names):
        told = prompts[effect.name].student
        table.add_row(
            "new", effect.name, escape(told), _teacher(prepared, effect.name), _pictures(prepared, effect.name)
        )
    return table


def _teacher(prepared: Prepared, effect: str) -> str:
    part = prepared.checked.teachers[effect]
    assert part is not None
    if part.needs.adapter is not None:
        return f"{part.name} {part.needs.adapter.name}, {prepared.checked.teacher_fits[effect]}"
    steps = getattr(part.settings, "steps", None)
    return f"{part.name}" + (f", {steps} steps of training" if steps else "")


def _pictures(prepared: Prepared, effect: str) -> str:
    items = prepared.checked.items[effect]
    return f"{len(items)} {'pairs' if items and items[0].target is not None else 'pictures'}"


def _run(checked: CheckedManifest) -> Iterator[str]:
    manifest, router = checked.manifest, checked.router.settings.model_dump()
    steps, mixed = manifest.train.generator_steps, max(checked.router.needs.begins.values(), default=0)
    phases = f" ({mixed} on mixed batches, then {steps - mixed} of the full objective)" if mixed else ""
    shares = {key: router[key] for key in ("new", "rehearsal", "general") if key in router}
    shared = f"; shares {', '.join(f'{key} {share:g}' for key, share in shares.items())}" if shares else ""
    rate = checked.slots[STUDENT].lr[0].lr
    yield f"Run:    {steps} generator steps{phases}, batch {manifest.train.batch_size}, learning rate {rate:g}{shared}"


def _start(prepared: Prepared) -> Iterator[str]:
    found = prepared.growth.checkpoint
    if found is None:
        yield "Start:  the collection's weights; optimiser and average begin anew (no checkpoint of its run was found)"
    else:
        yield f"Start:  weights, optimiser and average go on from {found.path}"


def _cost(prepared: Prepared) -> Iterator[str]:
    """Backbone calls are exact in expectation; the time is that of the collection's own run, where its log is there."""
    checked = prepared.checked
    calls = round(expected_calls(checked))
    pace = seconds_per_call(prepared)
    time = f", about {duration(calls * pace)} of training at the pace of the collection's run" if pace else ""
    single = f"{_target_calls(prepared):,} single ones for targets, less what is cached"
    yield f"Cost:   {calls:,} backbone calls in batches{time}; {single}"


def _target_calls(prepared: Prepared) -> int:
    """Count the calls that sample all targets: old effects by few steps, new ones and the general pool by many."""
    checked, old = prepared.checked, prepared.growth.collection.index
    targets, needing = checked.manifest.targets, [loss for loss in checked.losses if loss.loss.needs.targets]
    if targets is None or not needing:
        return 0
    few = [len(checked.items[effect.name]) for effect in old.effects]
    many = [len(checked.items[effect.name]) for effect in prepared.growth.new]
    if any(stream != "effect" for loss in needing for stream in (loss.streams or checked.streams)):
        many.append(len(checked.items.get(GENERAL, ())))
    return old.steps * sum(few) + targets.steps * sum(many)


def expected_calls(checked: CheckedManifest) -> float:
    """Return the backbone calls of the run, by the chances of the router's streams."""
    chances = stream_chances(checked)
    return sum(
        cycle.forwards * (cycle.until_step - cycle.from_step) * chances.get(cycle.stream, 1.0)
        for cycle in cycles(checked)
    )


def stream_chances(checked: CheckedManifest) -> dict[str, float]:
    """Return how often each stream comes up once batches are no longer mixed, where the router says so."""
    options = checked.router.settings.model_dump()
    if not {"new", "rehearsal", "general"} <= set(options):
        return {}
    total = options["new"] + options["rehearsal"] + options["general"]
    own = "rehearsal" in (checked.router.needs.streams or ())
    effect = options["new"] + (0.0 if own else options["rehearsal"])
    return {"effect": effect / total, "rehearsal": options["rehearsal"] / total, GENERAL: options["general"] / total}


def seconds_per_call(prepared: Prepared) -> float | None:
    """Return the seconds of a backbone call in the last steps of the collection's run, or None without its log."""
    if prepared.beside is None or not (prepared.beside.folder / FILE).is_file():
        return None
    records = [r for r in read_metrics(prepared.beside.folder / FILE)[-50:] if r.get("seconds") and r.get("forwards")]
    return median(r["seconds"] / r["forwards"] for r in records) if records else None
