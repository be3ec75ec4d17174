"""The plan of a growing run, printed before it starts (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.prompts import preview_prompts
from cldistill.progress.live import duration
from cldistill.records import GENERAL, STUDENT
from cldistill_plugins.incremental.estimate import parts_of, read_pace, target_calls
from cldistill_plugins.incremental.names import EFFECT, MIXED, REHEARSAL
from cldistill_plugins.incremental.prepare import Prepared
from cldistill_plugins.planning.api import backward_cost, cycles

SHOWN = 6
"""Old effects that are named one by one; fifty are a number."""


def print_growth(prepared: Prepared, console: Console, *, measure: bool = True) -> None:
    """Print old and new effects, what teaches what, the run, and its cost; ``measure``: whether it is measured afterwards."""
    checked, growth = prepared.checked, prepared.growth
    old, new = len(growth.collection.index.effects), len(growth.new)
    console.print(
        f"[bold]Growing {escape(growth.collection.index.title)}[/]: {old} effects + {new} = {old + new}",
        highlight=False,
    )
    console.print(_effects(prepared))
    for line in (
        *_run(checked),
        *_start(prepared),
        *_cost(prepared, measure),
        *(f"Note: {note}" for note in prepared.notes),
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _effects(prepared: Prepared) -> Table:
    table = Table("", "effect", "the student hears", "taught by", "shown on", box=SIMPLE_HEAD, pad_edge=False)
    prompts, names = preview_prompts(prepared.checked), [effect.name for effect in prepared.growth.new]
    old = [effect for effect in prepared.checked.effects if effect.name not in names]
    sampler = prepared.growth.collection.index.schedule.steps
    for effect in old[:SHOWN]:
        told = prompts[effect.name].student
        shown = escape(effect.name), escape(told)
        table.add_row("old", *shown, f"the collection, {sampler} steps", _pictures(prepared, effect.name))
    if len(old) > SHOWN:
        table.add_row("old", f"… and {len(old) - SHOWN} more", "", f"the collection, {sampler} steps", "")
    for effect in (effect for effect in prepared.checked.effects if effect.name in names):
        told = prompts[effect.name].student
        taught = escape(_teacher(prepared, effect.name))
        table.add_row("new", escape(effect.name), escape(told), taught, _pictures(prepared, effect.name))
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
    phases = f" (a first phase of {mixed}, then {steps - mixed} of the full objective)" if mixed else ""
    shares = {key: router[key] for key in ("new", "rehearsal", "general") if key in router}
    shared = f"; shares {', '.join(f'{key} {share:g}' for key, share in shares.items())}" if shares else ""
    rate = checked.slots[STUDENT].lr[0].lr
    batch = manifest.train.global_batch or manifest.train.batch_size
    yield f"Run:    {steps} generator steps{phases}, batch {batch}, learning rate {rate:g}{shared}"


def _start(prepared: Prepared) -> Iterator[str]:
    found = prepared.growth.checkpoint
    if found is None:
        yield "Start:  the collection's weights; optimiser and average begin anew (without a checkpoint of its run)"
    else:
        yield f"Start:  weights, optimiser and average go on from {found.path}"
    if late := [
        name for name, slot in prepared.checked.slots.items() if slot.from_step and slot.init == f"slot:{STUDENT}"
    ]:
        yield f"        {', '.join(late)}: begins after the first phase, as a copy of the student"


def _cost(prepared: Prepared, measure: bool) -> Iterator[str]:
    """Backbone calls are exact in expectation; the time is by the pace of the collection's own run, where its log is there."""
    checked, growth, beside = prepared.checked, prepared.growth, prepared.beside
    calls, single = round(expected_calls(checked)), target_calls(checked, growth)
    yield f"Cost:   {calls:,} backbone calls in batches; {single:,} single ones for targets, less what is cached"
    batch = int(growth.known["train"]["batch_size"])
    pace = read_pace(beside.folder, batch, backward_cost(checked)) if beside is not None else None
    if pace is None:
        yield "Time:   not known: the collection's run and its log are not beside it"
        return
    parts = [
        (name, seconds)
        for name, seconds in parts_of(checked, growth, pace, stream_chances(checked))
        if measure or name != "evaluation"
    ]
    shown = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts)
    yield f"Time:   about {duration(sum(seconds for _, seconds in parts))} at the pace of the collection's run: {shown}"
    if measure and checked.manifest.evaluate is not None and not pace.has_measured:
        yield "        and what measuring takes, which the log of the collection's run does not tell: it ended before"


def expected_calls(checked: CheckedManifest) -> float:
    """Return the backbone calls of the run, by the chances of the router's streams."""
    chances = stream_chances(checked)
    return sum(
        cycle.forwards * (cycle.until_step - cycle.from_step) * chances.get(cycle.stream, 1.0)
        for cycle in cycles(checked)
    )


def stream_chances(checked: CheckedManifest) -> dict[str, float]:
    """Return how often each stream comes up while it can come up at all, where the router says so."""
    options = checked.router.settings.model_dump()
    if not {"new", "rehearsal", "general"} <= set(options):
        return {}
    total = options["new"] + options["rehearsal"] + options["general"]
    new, rehearsal, general = (options[name] / total for name in ("new", "rehearsal", "general"))
    if REHEARSAL in (checked.router.needs.streams or ()):
        return {MIXED: new + general, EFFECT: new, REHEARSAL: rehearsal, GENERAL: general}
    return {EFFECT: new + rehearsal, GENERAL: general}
