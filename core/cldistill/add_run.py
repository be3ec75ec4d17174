"""Doing what `cldistill.add` prepared."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from cldistill.add import Prepared
from cldistill.runner import Outcome, execute


def grow(prepared: Prepared, output: Path, console: Console, command: str) -> Outcome:
    """Run, and say what every effect gained or lost; ``command`` is what goes on with it."""
    return execute(prepared.checked, output, console, command)
