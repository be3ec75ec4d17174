"""Launchers: which one started this process, what to type to start it so again, and processes that it forgot.

``accelerate launch --cpu --num_processes 2`` starts one process (accelerate leaves the others to ``mpirun``), and tells it
of the others only by ``MASTER_PORT``.  `start_missing_processes` notices and becomes ``torch.distributed.run``, which
starts both.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cldistill.errors import LaunchError

ACCELERATE = frozenset({"accelerate", "accelerate-launch", "accelerate.commands.launch"})
LAUNCHERS = ACCELERATE | {"torchrun", "torch.distributed.run"}
"""Programs and modules that start processes of a distributed run."""
RANKED = ("RANK", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_PROCID")
"""Any of these says that somebody did start the processes."""
SHUTDOWN_SECONDS = "900"
"""How long torch.distributed.run waits after Ctrl-C: a step of a large model and its checkpoint take minutes."""


@dataclass(frozen=True)
class Launch:
    """The command line of the launcher, as far as our own arguments."""

    words: tuple[str, ...]

    @property
    def by_accelerate(self) -> bool:
        """Whether it is ``accelerate launch``."""
        return _launcher(self.words) in ACCELERATE

    def option(self, name: str) -> str | None:
        """Return the value of ``--name value`` or ``--name=value``, with dashes or underscores."""
        for index, word in enumerate(self.words):
            key, equals, value = word.partition("=")
            if key.startswith("--") and key[2:].replace("-", "_") == name:
                return value if equals else next(iter(self.words[index + 1 :]), None)
        return None

    def again(self) -> list[str]:
        """Return its words as a person would type them: a launcher on the PATH without its interpreter and folder."""
        first, *rest = self.words
        if rest and Path(rest[0]).name in LAUNCHERS:  # a script, started by its interpreter
            first, *rest = rest
        return [_short(first), *rest]


def _launcher(words: Sequence[str]) -> str | None:
    """Return the launcher that a command line runs: its program, the script of its interpreter, or ``-m module``."""
    for word in words[:4]:
        if Path(word).name in LAUNCHERS:
            return Path(word).name
    return None


def _short(program: str) -> str:
    name = Path(program).name
    return name if shutil.which(name) == program else program


def find_launch(arguments: Sequence[str]) -> Launch | None:
    """Return the outermost launcher above this process that was given our ``arguments``, if it can be seen."""
    for words in reversed(_command_lines_above()):
        if list(words[-len(arguments) :]) == list(arguments) and _launcher(words) is not None:
            return Launch(tuple(words[: -len(arguments)]))
    return None


def _command_lines_above() -> list[list[str]]:
    """Return the command lines of the parent, its parent, and so on; what may not be seen is left out."""
    import psutil

    found = []
    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            with suppress(psutil.Error):
                found.append(list(process.cmdline()))
    return found


def start_missing_processes(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Return if all processes of the run are there; else become the launcher that starts them, with ``arguments``.

    Raises:
        LaunchError: how many are missing cannot be known, or this machine cannot hold them; with the command that works.
    """
    environment = os.environ if environment is None else environment
    if not left_alone(environment):
        return
    launch = find_launch(arguments)
    count = promised(launch)
    if count == 1:
        return
    if environment.get("ACCELERATE_USE_CPU", "").lower() not in ("true", "1", "yes"):
        raise LaunchError(_too_few_devices(count, arguments))
    if count is None or _several_machines(launch):
        raise LaunchError(_unknown_number(arguments))
    _become(torchrun(count, arguments), {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SHUTDOWN_SECONDS, **environment})


def left_alone(environment: Mapping[str, str]) -> bool:
    """Whether ``accelerate launch`` announced several processes (``MASTER_PORT``) and nobody started them."""
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_PORT" in environment
    return by_accelerate and not any(name in environment for name in RANKED)


def promised(launch: Launch | None) -> int | None:
    """Return the number of processes that ``accelerate launch`` was asked for, by option or by ``--config_file``."""
    if launch is None or not launch.by_accelerate:
        return None
    number = launch.option("num_processes")
    if number is None and (config := launch.option("config_file")) is not None:
        number = _of_config(Path(config))
    return int(number) if number is not None and number.isdecimal() else None


def _of_config(path: Path) -> str | None:
    import yaml

    with suppress(OSError, yaml.YAMLError):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML, too
        if isinstance(data, dict) and "num_processes" in data:
            return str(data["num_processes"])
    return None


def _several_machines(launch: Launch | None) -> bool:
    return launch is not None and launch.option("num_machines") not in (None, "1")


def torchrun(processes: int | str, arguments: Sequence[str]) -> list[str]:
    """Return the command that starts ``processes`` of us on this machine."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m", "cldistill"]
    return [sys.executable, *words, *arguments]


def _become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process: the launcher keeps its child, and so signals and the exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, dict(environment))


def _unknown_number(arguments: Sequence[str]) -> str:
    command = shlex.join(["python", *torchrun("N", arguments)[1:]])
    return (
        "accelerate launch announced several processes and started one (on the CPU it leaves them to mpirun), and how many "
        "you want on this machine cannot be read from its command line. Give it --num_processes, or start N processes with\n"
        f"  ACCELERATE_USE_CPU=true {command}\n"
        "(on several machines: --nnodes, --node_rank, --master_addr and --master_port instead of --standalone, on each)"
    )


def _too_few_devices(count: int | None, arguments: Sequence[str]) -> str:
    rest = shlex.join(["-m", "cldistill", *arguments])
    return (
        f"accelerate launch announced {count or 'several'} processes and started one: this machine has too few GPUs for "
        f"them. Use one process, or the CPU:\n  accelerate launch --num_processes 1 {rest}\n"
        f"  accelerate launch --cpu --num_processes {count or 'N'} {rest}"
    )


def command_words(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return what to type before ``run ...`` to start us as we were started: program, or launcher and module."""
    environment = os.environ if environment is None else environment
    processes = int(environment.get("WORLD_SIZE", "1"))
    if processes > 1:
        launch = find_launch(sys.argv[1:] if arguments is None else arguments)
        return launch.again() if launch is not None else _accelerate(processes, environment)
    return ["python", "-m", "cldistill"] if Path(sys.argv[0]).name == "__main__.py" else ["cldistill"]


def _accelerate(processes: int, environment: Mapping[str, str]) -> list[str]:
    cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    words = ["accelerate", "launch", "--cpu" if cpu else "--multi_gpu", "--num_processes", str(processes)]
    words += [] if precision == "no" else ["--mixed_precision", precision]
    return [*words, "-m", "cldistill"]
