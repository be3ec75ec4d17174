"""The launchers' environment: what to type to start as many processes again."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cldistill.progress.program import program


def command_words(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what to type before ``run ...`` to start as many of us again: program, or launcher and module."""
    environment = os.environ if environment is None else environment
    processes = environment.get("WORLD_SIZE", "1")
    if processes == "1":
        return program()
    if "ACCELERATE_MIXED_PRECISION" not in environment or on_cpu(environment):
        return torchrun(processes, cpu=on_cpu(environment))
    precision = environment["ACCELERATE_MIXED_PRECISION"]
    mixed = [] if precision == "no" else ["--mixed_precision", precision]
    return ["accelerate", "launch", "--multi_gpu", "--num_processes", processes, *mixed, "-m", "cldistill"]


def on_cpu(environment: Mapping[str, str]) -> bool:
    """Return whether the launcher was told to leave the GPUs alone."""
    return environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")


def torchrun(processes: str, *, cpu: bool) -> list[str]:
    """Return the words by which torchrun starts so many processes of us."""
    words = ["torchrun", "--standalone", "--nproc_per_node", processes, "-m", "cldistill"]
    return ["ACCELERATE_USE_CPU=true", *words] if cpu else words
