"""The refusal of launches that a run would misunderstand: missing processes, and ways to share that it does not know."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from cldistill.cli.launch import on_cpu, torchrun
from cldistill.errors import LaunchError

RANKED = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_PROCID")
"""Any of these says that somebody did start the processes."""
SHARDING = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "TP")
"""Ends of the variables ``ACCELERATE_USE_...`` by which a launcher asks for more than plain data parallelism."""


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
    several = shlex.join([*torchrun("N", cpu=True), *arguments])
    if on_cpu(environment):
        raise LaunchError(
            f"accelerate launch started one process of several; on the CPU, start N of them with\n  {several}"
        )
    alone = shlex.join(["accelerate", "launch", "--num_processes", "1", "-m", "cldistill", *arguments])
    raise LaunchError(
        "accelerate launch started one process of several: this machine has too few GPUs for them.  Use one process, or "
        f"N on the CPU:\n  {alone}\n  {several}"
    )


def refuse_sharding(environment: Mapping[str, str] | None = None) -> None:
    """Refuse what the launcher's configuration may ask for and a run does not do, before a process group is made.

    Raises:
        LaunchError: naming it.
    """
    environment = os.environ if environment is None else environment
    for name in SHARDING:
        if environment.get(f"ACCELERATE_USE_{name}", "").lower() in ("true", "1", "yes"):
            raise LaunchError(
                f"accelerate is configured for {name}, which would shard the model; every process of a cldistill run holds "
                "the whole frozen base and its small adapters, and shares only the work (plain data parallelism). Launch it "
                "with `accelerate launch --multi_gpu --num_processes N -m cldistill run ...`, or choose no distributed "
                "plugin in `accelerate config`"
            )
