"""The refusal of launches that a run would misunderstand: missing processes, and ways to share that it does not know."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from cldistill.cli.launch import ON_CPU, says_yes, torchrun
from cldistill.errors import LaunchError

RANKED = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_PROCID")
"""Any of these says that somebody did start the processes."""
UNKNOWN = ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG", "TP")
"""Ends of the variables ``ACCELERATE_USE_...`` by which a launcher asks for what a run does not know."""
FSDP = {
    "FSDP_VERSION": ("2", "fsdp_version: 2", "FSDP 1 flattens weights and would take the LoRA layers with them"),
    "FSDP_RESHARD_AFTER_FORWARD": (
        "true", "fsdp_reshard_after_forward: true", "blocks that stay gathered would save no memory",
    ),
    "FSDP_OFFLOAD_PARAMS": ("false", "fsdp_offload_params: false", "the LoRA layers look for their base on the device"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": (
        "false", "fsdp_cpu_ram_efficient_loading: false", "every rank but the first would load an empty text encoder",
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        "false", "fsdp_activation_checkpointing: false", "that is the manifest's train.gradient_checkpointing",
    ),
}  # fmt: skip
"""Variable of accelerate's configuration -> the value that it must have, how that is written there, and why."""
DEFAULTS = {"FSDP_VERSION": "1"}
"""accelerate's own values of variables that are not set, where they are not the values above."""
UNCUT = ("int8", "fp8")
"""Kinds of `base.options.quantise` whose weights lack ``aten.split``."""


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
    if says_yes(environment, ON_CPU):
        raise LaunchError(
            f"accelerate launch started one process of several; on the CPU, start N of them with\n  {several}"
        )
    alone = shlex.join(["accelerate", "launch", "--num_processes", "1", "-m", "cldistill", *arguments])
    raise LaunchError(
        "accelerate launch started one process of several: this machine has too few GPUs for them.  Use one process, or "
        f"N on the CPU:\n  {alone}\n  {several}"
    )


def wants_fsdp(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether the launcher is configured for FSDP."""
    return says_yes(os.environ if environment is None else environment, "ACCELERATE_USE_FSDP")


def refuse_sharding(settings: object, environment: Mapping[str, str] | None = None) -> None:
    """Refuse what the launcher's configuration may ask for and a run does not do; ``settings`` are the base's.

    Raises:
        LaunchError: naming it, and what to write instead.
    """
    environment = os.environ if environment is None else environment
    for name in UNKNOWN:
        if says_yes(environment, f"ACCELERATE_USE_{name}"):
            raise LaunchError(
                f"accelerate is configured for {name}; a run knows plain data parallelism (`accelerate launch --multi_gpu "
                "--num_processes N -m cldistill run ...`) and FSDP2, which shards the frozen base (docs/several-machines.md)"
            )
    if not wants_fsdp(environment):
        return
    for variable, (value, written, why) in FSDP.items():
        if environment.get(variable, DEFAULTS.get(variable, value)).lower() != value:
            raise LaunchError(f"accelerate is configured for FSDP, where a run needs `{written}`: {why}")
    refuse_uncut(settings)


def refuse_uncut(settings: object) -> None:
    """Refuse to share out a base whose weights torchao does not cut into parts.

    Raises:
        LaunchError: naming the one that it does cut.
    """
    kind = getattr(settings, "quantise", None)
    if kind in UNCUT:
        raise LaunchError(
            f"base.options.quantise: {kind} and FSDP do not go together: torchao does not cut such weights into the ranks' "
            "parts. Write `nf4`, or leave one of the two out"
        )
