"""The plan as people read it: the verdict first, then everything that the run is; nothing is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from cldistill_plugins.planning.fit import Device, Remedy, advice, size
from cldistill_plugins.planning.hours import Hours
from cldistill_plugins.planning.memory import Amount
from cldistill_plugins.planning.plan import Plan

MISSING_SHOWN = 10
"""Missing files that are listed; ``--json`` has them all."""
LARGEST = 2
TIGHT = 0.05
"""Share of a device below which its headroom is called tight: the activations are an estimate."""


@dataclass(frozen=True)
class Verdict:
    """The beginning of what `cldistill plan` prints."""

    device: Device | None
    """None where nobody knows how much memory there is."""
    peak_bytes: float
    hours: Hours
    remedy: Remedy | None = None
    missing: tuple[str, ...] = ()
    """Files that the run needs and that are not there."""

    @property
    def fits(self) -> bool | None:
        """Return whether the device holds the run; None where its memory is not known."""
        return None if self.device is None else self.peak_bytes <= self.device.bytes


def count(number: float) -> str:
    """Return a number of parameters in words."""
    for unit, factor in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.2f} {unit}" if number < 10 * factor else f"{number / factor:.1f} {unit}"
    return f"{number:.0f}"


def print_verdict(plan: Plan, verdict: Verdict, console: Console) -> None:
    """Print whether the run fits, its time, what would make it fit, and what is missing."""
    head, *rest = fit_lines(plan, verdict)
    colour = {True: "green", False: "red", None: "yellow"}[verdict.fits]
    console.print(f"[bold {colour}]{escape(head)}[/]", highlight=False)
    for line in rest:  # settings can be copied: neither wrapped nor cut
        console.print(line, markup=False, highlight=False, soft_wrap=line.startswith("  "))
    console.print(f"Time: {verdict.hours}.", markup=False, highlight=False)
    if verdict.missing:
        number = len(verdict.missing)
        console.print(f"[bold yellow]Missing before it can run[/] ({number}; `cldistill check` says the same):")
        for line in verdict.missing[:MISSING_SHOWN]:
            console.print(Padding(escape(line), (0, 0, 0, 2)), highlight=False)
        if number > MISSING_SHOWN:
            console.print(f"  ... and {number - MISSING_SHOWN} more", highlight=False)


def fit_lines(plan: Plan, verdict: Verdict) -> Iterator[str]:
    """Yield whether the run fits, and what would make it fit."""
    need = f"{plan.name} needs about {size(verdict.peak_bytes)} a device"
    if verdict.device is None:
        yield f"{need}; how much there is here is not known: give --device or --memory."
        return
    name, spare = verdict.device.name, verdict.device.bytes - verdict.peak_bytes
    if verdict.fits:
        share = spare / verdict.device.bytes
        tight = " (tight: activations are an estimate)" if share < TIGHT else ""
        yield f"Fits: {need}, and {name} has {size(verdict.device.bytes)}: {size(spare)} to spare, {share:.0%}{tight}."
        return
    yield f"Does not fit: {need}, and {name} has {size(verdict.device.bytes)}: {size(-spare)} short."
    if verdict.remedy is not None:
        first, *lines = advice(verdict.remedy)
        yield f"{first[0].upper()}{first[1:].removesuffix(':')}:"
        yield from lines
        if not verdict.remedy.fits:
            amounts = {amount.name: amount.bytes for amount in (*plan.preparing, *plan.sampling, *plan.training)}
            largest = sorted(amounts, key=lambda name: -amounts[name])[:LARGEST]
            yield f"Its largest parts: {', '.join(f'{n}, {size(amounts[n])}' for n in largest)}. Take a larger card."


def print_plan(plan: Plan, console: Console) -> None:
    """Print parts, effects, cost of a cycle, adapters, memory and disk."""
    console.print(f"\n[bold]{plan.name}[/] ({escape(plan.source)}), resolved:\n", highlight=False)
    console.print(_parts(plan), *_effects(plan), _cycles(plan), _adapters(plan))
    console.print(_bill("Memory per device while latents and embeddings are computed", plan.preparing))
    if plan.sampling:
        console.print(
            _bill("Memory per device while teachers are sampled, before the base is shared out", plan.sampling)
        )
    console.print(_bill("Memory per device while training", plan.training))
    console.print(_bill("Disk", plan.disk))
    console.print(
        f"Base: {count(plan.base_parameters)} parameters, {plan.base_modules} adapted modules. "
        f"Peak memory per device: about {size(plan.peak_bytes)}. (~ marks estimates.)",
        highlight=False,
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=f"[bold]{title}[/]", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # a long word goes on in the next line instead of ending in an ellipsis
    return table


def _parts(plan: Plan) -> Table:
    table = _table("Parts", "part", "use and options")
    table.columns[0].no_wrap = True
    for part in plan.parts:
        options = ", ".join(f"{key}={value}" for key, value in part.options.items())
        told = f"[bold]{escape(part.name)}[/]  [dim]{escape(part.owner)}[/]"
        table.add_row(part.path, told + (f"\n{escape(options)}" if options else ""))
    return table


def _effects(plan: Plan) -> Iterator[RenderableType]:
    yield f"[bold]Effects[/] ({len(plan.effects)})"
    for effect in plan.effects:
        rank = f", rank {effect.teacher_rank}" if effect.teacher_rank else ""
        pairs = f"; {effect.pairs} pairs" if effect.pairs is not None else ""
        fit = f": {effect.teacher_fit}" if effect.teacher_fit else ""
        taught = f"{effect.teacher or 'no teacher'}{fit}{rank}{pairs}"
        trigger = f", trigger {effect.prompts.trigger}" if effect.prompts.trigger else ""
        lines = f"student: {effect.prompts.student}\nteacher: {effect.prompts.teacher}\nfrom:    {taught}"
        yield f"[bold]{escape(effect.name)}[/]{escape(trigger)}"
        yield Padding(escape(lines), (0, 0, 0, 2))
    yield ""


def _cycles(plan: Plan) -> Table:
    title = "Backbone calls in a cycle (a generator step with its critic updates), on average"
    table = _table(title, "steps", "stream", "updates", "calls", "with checkpointing")
    for cycle in plan.cycles:
        updates = ", ".join(f"{slot} x{number}" for slot, number in cycle.updates.items())
        steps = f"{cycle.from_step}-{cycle.until_step}"
        costly = f"{cycle.with_checkpointing:g}" + ("" if plan.gradient_checkpointing else " (off)")
        table.add_row(steps, escape(cycle.stream), updates, f"{cycle.forwards:g}", costly)
    return table


def _adapters(plan: Plan) -> Table:
    table = _table("Adapters", "slot", "rank", "modules", "parameters", "fp32", "bf16")
    for slot in plan.adapters:
        numbers = (count(slot.parameters), size(slot.fp32_bytes), size(slot.bf16_bytes))
        table.add_row(escape(slot.slot), str(slot.rank), str(slot.modules), *numbers)
    return table


def _bill(title: str, amounts: Sequence[Amount]) -> Table:
    table = _table(title, "what", "size")
    table.show_footer = True
    table.columns[0].footer = "total"
    table.columns[1].footer = size(sum(amount.bytes for amount in amounts))
    table.columns[1].justify = "right"
    for amount in amounts:
        table.add_row(escape(amount.name), ("~ " if amount.estimate else "") + size(amount.bytes))
    return table
