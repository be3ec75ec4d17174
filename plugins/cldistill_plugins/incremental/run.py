"""The growing run itself, then the old collection and the grown one measured side by side."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from cldistill.manifest.models import Evaluate, EvaluatedSystem
from cldistill.records import Change
from cldistill.runner import execute, is_main
from cldistill.storage.files import atomic_write_text
from cldistill_plugins.evaluation.api import END_OF_RUN, EvaluationPlan, evaluate_manifest, lacking
from cldistill_plugins.incremental.edit import keep_removed
from cldistill_plugins.incremental.growing_manifest import BEFORE
from cldistill_plugins.incremental.outcome import AFTER, outcome, table
from cldistill_plugins.incremental.prepare import Prepared

MEASURED = "growth"
"""Folder of the evaluation within the run's."""


def grow(
    prepared: Prepared,
    output: Path,
    console: Console,
    command: str,
    *,
    measure: bool = True,
    may_change: Collection[Change] = (),
) -> bool:
    """Run, and say what every effect gained or lost; ``command`` is what goes on with it.

    Returns whether it is finished: False after a stop.
    """
    done = execute(prepared.checked, output, console, command, leave_out=[END_OF_RUN], may_change=may_change)
    if not done.finished or not is_main() or done.collection is None:
        return done.finished
    keep_removed(done.collection, prepared.growth.collection.index.removed)
    if not measure:
        return True
    evaluate = prepared.checked.manifest.evaluate
    if evaluate is None:
        console.print("What changed was not measured: the manifest has no `evaluate:` (--set evaluate=… gives it one).")
        return True
    plan = compared(evaluate, done.collection)
    evaluated = evaluate_manifest(prepared.checked, plan, output / MEASURED, console, command, command)
    if evaluated.report is None:
        return False
    found = outcome(json.loads(evaluated.report.read_text(encoding="utf-8")), [e.name for e in prepared.growth.new])
    atomic_write_text(output / "growth.json", json.dumps(found.to_json(), indent=1) + "\n")
    console.print("What every effect gained or lost, on held-out pictures \\[95 % interval]:")
    console.print(table(found))
    for line in (
        f"Changes:    {output / 'growth.json'}",
        f"Report:     {lacking() or output / MEASURED / 'report.html'}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return True


def compared(evaluate: Evaluate, collection: Path) -> EvaluationPlan:
    """Return what is compared: the manifest's systems (the collection before, the new effects' teachers) and the grown one."""
    grown = {"name": AFTER, "title": "the grown collection", "adapter": str(collection.resolve())}
    systems = (*evaluate.systems, EvaluatedSystem.model_validate(grown))
    return EvaluationPlan(evaluate.model_copy(update={"systems": systems, "compare": ((AFTER, BEFORE),)}), systems, ())
