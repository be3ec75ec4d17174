"""The launchers' environment: whether all processes of a run were started, and what to type to start it so again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from cldistill.errors import LaunchError
from cldistill.progress.program import program

RANKED = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_PROCID")
"""Any of these says that somebody did start the processes."""


def refuse_missing_processes(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Refuse to train alone where ``accelerate launch`` was asked for several processes and started one.

    It does so with ``--cpu`` (the others are left to ``mpirun``), and where the machine has too few GPUs; it announces them
    by ``MASTER_PORT`` alone, without their number.

    Raises:
        LaunchError: with the command that starts them.
    """
    environment = os.environ if environment is None else environment
    announced = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_PORT" in environment
    if not announced or any(name in environment for name in RANKED):
        return
    on_cpu = shlex.join([*_torchrun("N", cpu=True), *arguments])
    if _on_cpu(environment):
        raise LaunchError(
            f"accelerate launch started one process of several; on the CPU, start N of them with\n  {on_cpu}"
        )
    alone = shlex.join(["accelerate", "launch", "--num_processes", "1", "-m", "cldistill", *arguments])
    raise LaunchError(
        "accelerate launch started one process of several: this machine has too few GPUs for them.  Use one process, or "
        f"N on the CPU:\n  {alone}\n  {on_cpu}"
    )


def command_words(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what to type before ``run ...`` to start as many of us again: program, or launcher and module."""
    environment = os.environ if environment is None else environment
    processes = environment.get("WORLD_SIZE", "1")
    if processes == "1":
        return program()
    if "ACCELERATE_MIXED_PRECISION" not in environment or _on_cpu(environment):
        return _torchrun(processes, cpu=_on_cpu(environment))
    precision = environment["ACCELERATE_MIXED_PRECISION"]
    mixed = [] if precision == "no" else ["--mixed_precision", precision]
    return ["accelerate", "launch", "--multi_gpu", "--num_processes", processes, *mixed, "-m", "cldistill"]


def _on_cpu(environment: Mapping[str, str]) -> bool:
    return environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")


def _torchrun(processes: str, *, cpu: bool) -> list[str]:
    words = ["torchrun", "--standalone", "--nproc_per_node", processes, "-m", "cldistill"]
    return ["ACCELERATE_USE_CPU=true", *words] if cpu else words
