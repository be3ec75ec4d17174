"""The provenance of a result: command, date, versions and machine, in the shape in which results are committed."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("cldistill", "torch", "diffusers", "transformers", "peft", "numpy")


def provenance(command: str, seed: int | None, libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """Return ``created``, ``command``, ``seed``, ``versions`` and ``machine`` of a result, as plain data."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "versions": {name: found for name in libraries if (found := _version(name)) is not None},
        "machine": machine(),
    }


def machine() -> dict[str, str | int | None]:
    """Return processor, cores that this process may use, Python and platform; neither host name nor paths."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": usable,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
