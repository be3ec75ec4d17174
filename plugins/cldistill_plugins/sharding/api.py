"""Public names of ``sharding``: a share of the work, from ``--shard K/N`` or from what started the process; needs no torch."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

from cldistill.errors import OptionsError

__all__ = ["WHOLE", "Shard", "ShardOption", "take_shard"]

T = TypeVar("T")

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="K/N",
        help="Do only the K-th of N shares (default: as a Slurm array says); a launcher's processes divide it further.",
    ),
]  # fmt: skip
GROUP = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
"""Variables by which a launcher announces a process group, which shares of work do not need."""
ARRAY = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True)
class Shard:
    """The share ``number`` of ``count``, counted from 1, of a list of work: every process is given the same list."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def every(self, work: Sequence[T]) -> list[T]:
        """Return every ``count``-th entry: for work whose cost changes along the list."""
        return list(work[self.number - 1 :: self.count])

    def block(self, work: Sequence[T]) -> list[T]:
        """Return neighbouring entries: for work whose neighbours share something that takes long to load."""
        return list(work[len(work) * (self.number - 1) // self.count : len(work) * self.number // self.count])

    def part(self, number: int, count: int) -> Shard:
        """Return the 1-based part ``number`` of ``count`` of this share."""
        return Shard((self.number - 1) * count + number, self.count * count)


WHOLE = Shard()
"""All of the work."""


def take_shard(option: str | None, environment: MutableMapping[str, str] | None = None) -> Shard:
    """Return the share that this process is to do: what ``--shard`` says, else Slurm's array, and of it this rank's part.

    The processes of a launcher do not talk to one another here: its variables are taken out of the environment, so that no
    process group is made that would wait for the slowest, and CUDA is shown the one GPU of this process.

    Raises:
        OptionsError: the option is no K/N, or the array is not evenly spaced.
    """
    environment = os.environ if environment is None else environment
    shard = _array(environment) if option is None else _parsed(option)
    rank, ranks, local = (environment.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if rank is not None and ranks is not None:
        shard = shard.part(int(rank) + 1, int(ranks))
        if local is not None and int(environment.get("LOCAL_WORLD_SIZE", "1")) > 1:
            visible = environment.get("CUDA_VISIBLE_DEVICES")
            names = [] if visible is None else visible.split(",")
            if visible is None or (len(names) > int(local) and len(names) > 1):  # one alone is its own already
                environment["CUDA_VISIBLE_DEVICES"] = names[int(local)] if names else local
        for name in GROUP:
            environment.pop(name, None)
    return shard


def _parsed(option: str) -> Shard:
    found = re.fullmatch(r"(\d+)/(\d+)", option.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise OptionsError(f"--shard {option}: write K/N, the K-th of N shares, K from 1 to N: --shard 3/16")
    return Shard(int(found[1]), int(found[2]))


def _array(environment: MutableMapping[str, str]) -> Shard:
    """Return the share of a task of a Slurm array, wherever its numbers begin: ``--array=0-15``, ``1-16``, ``3,7``."""
    if f"{ARRAY}ID" not in environment or f"{ARRAY}COUNT" not in environment:
        return WHOLE
    task, count = int(environment[f"{ARRAY}ID"]), int(environment[f"{ARRAY}COUNT"])
    first, last = (int(environment.get(f"{ARRAY}{end}", default)) for end, default in (("MIN", 0), ("MAX", count - 1)))
    place, rest = divmod((task - first) * (count - 1), max(1, last - first))
    if rest or not 0 <= place < count:
        raise OptionsError(
            f"task {task} of a Slurm array of {count} from {first} to {last}: its numbers are not evenly spaced, so say "
            "which share it is by --shard K/N"
        )
    return Shard(place + 1, count)
