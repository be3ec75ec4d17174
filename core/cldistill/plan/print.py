"""The plan as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cldistill.plan.costs import Amount
from cldistill.plan.plan import Plan

OPTION_LENGTH = 60
"""Longer values of options are cut; ``--json`` has them whole."""


def size(count: float) -> str:
    """Return bytes in decimal units, as disks and the project's documents count them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def count(number: float) -> str:
    """Return a number of parameters in words."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.2f} {unit}" if number < 10 * factor else f"{number / factor:.1f} {unit}"
    return f"{number:.0f}"


def print_plan(plan: Plan, console: Console) -> None:
    """Print parts, effects, cost of a cycle, adapters, memory and disk."""
    console.print(f"[bold]{plan.name}[/] ({escape(plan.source)}), resolved:", highlight=False)
    console.print(_parts(plan), _effects(plan), _cycles(plan), _adapters(plan))
    console.print(_bill("Memory per device while latents and embeddings are computed", plan.preparing))
    console.print(_bill("Memory per device while training", plan.training))
    console.print(_bill("Disk", plan.disk))
    console.print(
        f"Base: {count(plan.base_parameters)} parameters, {plan.base_modules} adapted modules. "
        f"Peak memory per device: about {size(plan.peak_bytes)}. (~ marks estimates.)",
        highlight=False,
    )


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=f"[bold]{title}[/]", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _parts(plan: Plan) -> Table:
    table = _table("Parts", "part", "use", "owner", "options")
    for part in plan.parts:
        options = ", ".join(f"{key}={_short(value)}" for key, value in part.options.items())
        table.add_row(part.path, part.name, part.owner, escape(options) or "-")
    return table


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= OPTION_LENGTH else text[: OPTION_LENGTH - 3] + "..."


def _effects(plan: Plan) -> Table:
    table = _table("Effects", "effect", "trigger", "prompts and teacher")
    for effect in plan.effects:
        rank = f", rank {effect.teacher_rank}" if effect.teacher_rank else ""
        pairs = f"; {effect.pairs} pairs" if effect.pairs is not None else ""
        told = f"student: {effect.prompts.student}\nteacher: {effect.prompts.teacher}"
        fit = f": {effect.teacher_fit}" if effect.teacher_fit else ""
        taught = f"{effect.teacher or 'no teacher'}{fit}{rank}{pairs}"
        table.add_row(effect.name, escape(effect.prompts.trigger) or "-", escape(f"{told}\n  from: {taught}"))
    return table


def _cycles(plan: Plan) -> Table:
    title = "Backbone calls in a cycle (a generator step with its critic updates), on average"
    table = _table(title, "steps", "stream", "updates", "calls", "with checkpointing")
    for cycle in plan.cycles:
        updates = ", ".join(f"{slot} x{number}" for slot, number in cycle.updates.items())
        steps = f"{cycle.from_step}-{cycle.until_step}"
        costly = f"{cycle.with_checkpointing:g}" + ("" if plan.gradient_checkpointing else " (off)")
        table.add_row(steps, cycle.stream, updates, f"{cycle.forwards:g}", costly)
    return table


def _adapters(plan: Plan) -> Table:
    table = _table("Adapters", "slot", "rank", "modules", "parameters", "fp32", "bf16")
    for slot in plan.adapters:
        numbers = (count(slot.parameters), size(slot.fp32_bytes), size(slot.bf16_bytes))
        table.add_row(slot.slot, str(slot.rank), str(slot.modules), *numbers)
    return table


def _bill(title: str, amounts: Sequence[Amount]) -> Table:
    table = _table(title, "what", "size")
    table.show_footer = True
    table.columns[0].footer = "total"
    table.columns[1].footer = size(sum(amount.bytes for amount in amounts))
    table.columns[1].justify = "right"
    for amount in amounts:
        table.add_row(amount.name, ("~ " if amount.estimate else "") + size(amount.bytes))
    return table
