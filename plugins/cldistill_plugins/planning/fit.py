"""The memory of a run against that of a device, and the settings that would make it fit (torch-free unless it is loaded)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from shutil import which

from cldistill.errors import CldistillError, ManifestError
from cldistill.manifest.check import validate
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.load import load_manifest
from cldistill_plugins.planning.memory import memory
from cldistill_plugins.ranks.api import wants_fsdp

SHOWN = 3
"""Single settings that are offered; more would be a list to read, and no advice."""
SMALLEST_RANK = 16
CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Device:
    """A device and its memory, as its driver states it."""

    name: str
    bytes: float
    tflops: float | None = None
    """Dense bf16 multiplications and additions in 1e12 a second, where they are known."""
    gpu: bool = True


@dataclass(frozen=True)
class Change:
    """Settings that were planned anew, and the peak memory with them."""

    settings: tuple[str, ...]
    peak: float

    def __str__(self) -> str:
        return f"{' '.join(f'--set {setting}' for setting in self.settings)}  ->  {size(self.peak)}"


@dataclass(frozen=True)
class Remedy:
    """The single settings that make a run fit or, where none does, several together; ``fits`` is false where nothing does."""

    changes: tuple[Change, ...]
    fits: bool


def size(count: float) -> str:
    """Return bytes in decimal units, as disks and the project's documents count them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def peak(checked: CheckedManifest, ranks: int = 1) -> float:
    """Return the peak memory per device, of which ``ranks`` share the base: that of the largest of its stages."""
    return memory(checked, ranks).peak


def ranks_here() -> int:
    """Return the number of processes among which this launch shares the base out, 1 where each has all of it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if wants_fsdp() else 1


def device_here(*, cpu: bool = False) -> Device | None:
    """Return the smallest GPU that a run would take, else the memory of this machine; None where it does not tell."""
    gpus = [] if cpu else _gpus()
    if gpus:
        return min(gpus, key=lambda gpu: gpu.bytes)
    with suppress(AttributeError, OSError, ValueError):  # no such question on Windows
        whole = float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
        limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
        return Device("the memory of this machine", min(whole, float(limit) if limit.isdigit() else whole), gpu=False)
    return None


def _gpus() -> list[Device]:
    """Ask torch where it is loaded (it knows what is hidden, and other makers' cards), else NVIDIA's own tool."""
    if (torch := sys.modules.get("torch")) is not None:
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [Device(card.name, float(card.total_memory)) for card in found]
    visible, tool = os.environ.get("CUDA_VISIBLE_DEVICES"), which("nvidia-smi")
    if tool is None or visible == "":
        return []
    chosen = [f"--id={visible}"] if visible is not None else []
    words = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits", *chosen]
    with suppress(OSError, ValueError, subprocess.TimeoutExpired):
        told = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
        rows = [line.rpartition(",") for line in told.stdout.splitlines()] if told.returncode == 0 else []
        return [Device(name.strip(), float(mebibytes) * 2**20) for name, _, mebibytes in rows]
    return []


def must_fit(checked: CheckedManifest, reference: str, overrides: Sequence[str], option: str) -> None:
    """Refuse a run that needs more memory than its device has, before anything is prepared; ``option`` overrules it.

    Raises:
        ManifestError: with what it needs, what there is, and the settings that would make it fit.
    """
    device = device_here(cpu=checked.manifest.train.device == "cpu")
    if device is None or (needed := peak(checked, ranks_here())) <= device.bytes:
        return
    remedy = remedies(checked, reference, overrides, device.bytes, ranks_here())
    raise ManifestError(
        f"{checked.file.source}: the run needs about {size(needed)} on each device, and {device.name} has "
        f"{size(device.bytes)}\n" + "\n".join(advice(remedy)) + f"\n`cldistill plan` has the bill; {option} goes on"
    )


def advice(remedy: Remedy) -> list[str]:
    """Return in lines what would make a run fit, or that nothing does."""
    if not remedy.fits:
        return ["no setting makes it fit; the least that it can take", *(f"  {change}" for change in remedy.changes)]
    return ["it would fit with" + (", any one alone" if len(remedy.changes) > 1 else ""),
            *(f"  {change}" for change in remedy.changes)]  # fmt: skip


def remedies(checked: CheckedManifest, reference: str, overrides: Sequence[str], room: float, ranks: int = 1) -> Remedy:
    """Plan the manifest anew with one setting changed after another, and return what makes it fit into ``room`` bytes."""

    def planned(settings: Sequence[str]) -> Change | None:
        try:
            changed = validate(load_manifest(reference, [*overrides, *settings]), checked.catalogue, files=False)
        except CldistillError:  # a slot that starts from a file of another rank, say
            return None
        return Change(tuple(settings), peak(replace(changed, teacher_ranks=checked.teacher_ranks), ranks))

    groups = list(_candidates(checked, ranks))
    # Of one setting's steps (rank 64, 32, 16) the first that is enough.
    found = [[change for step in steps if (change := planned(step)) is not None] for steps in groups]
    enough = [next((change for change in steps if change.peak <= room), None) for steps in found]
    if single := [change for change in enough if change is not None]:
        return Remedy(tuple(single[:SHOWN]), True)
    parts: list[Sequence[str]] = []
    together: Change | None = None
    for steps in groups:
        for step in steps:
            together = planned([*chain(*parts), *step]) or together
            if together is not None and together.peak <= room:
                return Remedy((_lean([*parts, step], together, planned, room),), True)
        parts.append(steps[-1])
    least = _lean(parts, together, planned, together.peak) if together is not None else None
    return Remedy((least,) if least is not None else (), False)


def _lean(
    parts: list[Sequence[str]], found: Change, planned: Callable[[Sequence[str]], Change | None], room: float
) -> Change:
    """Leave out what is not needed to stay within ``room``, the costliest for the result first."""
    for part in reversed(parts):
        rest = [other for other in parts if other is not part]
        if len(rest) < len(parts) > 1 and (without := planned([*chain(*rest)])) is not None and without.peak <= room:
            parts, found = rest, without
    return found


def _candidates(checked: CheckedManifest, ranks: int) -> Iterator[list[tuple[str, ...]]]:
    """Yield the settings that save memory, those that change the least in the result first; each in its steps."""
    train, slots, options = checked.manifest.train, checked.manifest.slots, checked.base.settings.model_dump()
    if train.gradient_checkpointing is not True:
        yield [("train.gradient_checkpointing=true",)]
    if train.mixed_precision is None:
        yield [("train.mixed_precision=bf16",)]
    if options.get("dtype") == "float32":
        yield [("base.options.dtype=bfloat16",)]
    if train.batch_size > 1:
        whole = train.global_batch or train.batch_size * int(os.environ.get("WORLD_SIZE", "1"))
        yield [("train.batch_size=1", f"train.global_batch={whole}")]  # as many items an update, one after another
    if averaged := tuple(f"slots.{name}.ema=null" for name, slot in slots.items() if slot.ema is not None):
        if train.ema_device is None:
            yield [("train.ema_device=cpu",)]
        yield [averaged]
    if "quantise" in options and options["quantise"] is None:
        kinds = ("int8", "nf4") if ranks == 1 else ("nf4",)  # FSDP does not cut int8
        yield [(f"base.options.quantise={kind}",) for kind in kinds]
    if exact := tuple(f"slots.{name}.moments=8bit" for name, slot in slots.items() if slot.moments is None):
        yield [exact]
    lower, step = [], max(slot.rank for slot in slots.values())
    while step > SMALLEST_RANK:
        step //= 2
        smaller = {name: slot for name, slot in slots.items() if slot.rank > step}
        scaled = [f"slots.{name}.alpha={step}" for name, slot in smaller.items() if slot.alpha is not None]
        lower.append((*(f"slots.{name}.rank={step}" for name in smaller), *scaled))
    if lower:
        yield lower
    if (side := options.get("resolution")) and side >= 1024:
        yield [(f"base.options.resolution={side * 3 // 4}",), (f"base.options.resolution={side // 2}",)]
