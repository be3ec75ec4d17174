"""Doing what `cldistill.add` prepared."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cldistill.add import Prepared
from cldistill.collection_edit import keep_removed
from cldistill.runner import Outcome, execute


def grow(prepared: Prepared, output: Path, console: Console, command: str) -> Outcome:
    """Run, and say what every effect gained or lost; ``command`` is what goes on with it."""
    outcome = execute(prepared.checked, output, console, command)
    if outcome.collection is not None:
        keep_removed(outcome.collection, prepared.growth.collection.index.removed)
    return outcome
