"""The launchers' environment: what to type to start as many processes again."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cldistill.progress.program import program

ON_CPU = "ACCELERATE_USE_CPU"


def command_words(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what to type before ``run ...`` to start as many of us again: program, or launcher and module."""
    environment = os.environ if environment is None else environment
    processes = environment.get("WORLD_SIZE", "1")
    if processes == "1":
        return program()
    cpu = says_yes(environment, ON_CPU)
    if "ACCELERATE_MIXED_PRECISION" not in environment or cpu:
        return torchrun(processes, cpu=cpu)
    precision = environment["ACCELERATE_MIXED_PRECISION"]
    mixed = [] if precision == "no" else ["--mixed_precision", precision]
    return ["accelerate", "launch", "--multi_gpu", "--num_processes", processes, *mixed, "-m", "cldistill"]


def says_yes(environment: Mapping[str, str], name: str) -> bool:
    """Return whether a variable by which accelerate's launcher tells its choices is set to yes."""
    return environment.get(name, "").lower() in ("true", "1", "yes")


def torchrun(processes: str, *, cpu: bool) -> list[str]:
    """Return the words by which torchrun starts so many processes of us."""
    words = ["torchrun", "--standalone", "--nproc_per_node", processes, "-m", "cldistill"]
    return ["ACCELERATE_USE_CPU=true", *words] if cpu else words
