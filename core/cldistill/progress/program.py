"""The words that start this program again where it was started: what printed commands begin with."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import which


def program() -> list[str]:
    """Return ``cldistill``, or as it was typed where that name alone finds none, or another: ``.venv/bin/cldistill``."""
    typed = Path(sys.argv[0])
    if typed.name == "__main__.py":
        return ["python", "-m", "cldistill"]
    if typed.name != "cldistill":  # a test, or a script of somebody's own
        return ["cldistill"]
    found = which("cldistill")
    return ["cldistill"] if found is not None and Path(found).resolve() == typed.resolve() else [str(typed)]


def shown(path: Path) -> str:
    """Return a path as it is typed here: relative to the current folder where it lies below it."""
    full = path.absolute()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
