"""The costs of a run, counted before anything is loaded: backbone calls per cycle, adapter sizes, memory and disk.

Counts of calls and parameters are exact in expectation.  Memory of activations and size of the cache are estimates, and
are marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cldistill.manifest.checked import CheckedLoss, CheckedManifest
from cldistill.records import STUDENT, BaseDescription

CHECKPOINT_COST = 3
"""A graded call in units of a plain one: forward, recomputed forward, and a backward counted as one."""
TRAINED_BYTES = 16
"""Per parameter of a slot, all fp32: weight, gradient, and Adam's two moments."""
SAVED_BYTES = 12
"""Per parameter in a checkpoint: weight and Adam's two moments."""
EMA_BYTES = 4
PROGRAM_BYTES = 1.0e9
"""A run of the miniature holds 1.9 GB at its peak, pictures and metrics included; a CUDA context half a gigabyte."""
EXPORT_BYTES = 2
TEXT_TOKENS = 256
"""Assumed length of an encoded prompt with its picture."""
BLOCK_ACTIVATIONS = 34
"""Values that one transformer block keeps for its backward, per token and unit of width (Korthikanti et al. 2022)."""


@dataclass(frozen=True)
class Cycle:
    """One generator step with its critic updates, all on one stream, in a phase of the run."""

    stream: str
    from_step: int
    until_step: int
    forwards: float
    """Expected calls of the backbone, guidance counted twice."""
    graded: int
    """Calls with a gradient among them."""
    updates: Mapping[str, int]
    """Slot -> optimiser updates."""

    @property
    def with_checkpointing(self) -> float:
        """Expected calls when a graded one costs `CHECKPOINT_COST`."""
        return self.forwards + (CHECKPOINT_COST - 1) * self.graded


@dataclass(frozen=True)
class AdapterSize:
    """A trainable slot."""

    slot: str
    rank: int
    modules: int
    parameters: int
    fp32_bytes: int
    bf16_bytes: int
    ema: bool


@dataclass(frozen=True)
class Amount:
    """One line of a bill, in bytes."""

    name: str
    bytes: float
    estimate: bool = False


def lora_parameters(description: BaseDescription, targets: Iterable[str], rank: int) -> int:
    """Return the parameters of a LoRA: ``rank * (out + in)`` for each module."""
    return sum(rank * sum(description.modules[name]) for name in targets)


def adapter_sizes(checked: CheckedManifest) -> tuple[AdapterSize, ...]:
    """Return the size of every slot."""
    sizes = []
    for name, slot in checked.slots.items():
        count = lora_parameters(checked.description, slot.targets, slot.rank)
        sizes.append(AdapterSize(name, slot.rank, len(slot.targets), count, 4 * count, 2 * count, slot.ema is not None))
    return tuple(sizes)


def cycles(checked: CheckedManifest) -> tuple[Cycle, ...]:
    """Return the cost of a cycle on each stream in each phase; phases are cut where a loss, slot or stream begins or ends."""
    manifest = checked.manifest
    end = manifest.train.generator_steps
    cuts = {0, *(loss.from_step for loss in checked.losses), *(slot.from_step for slot in manifest.slots.values())}
    cuts |= {loss.until_step for loss in checked.losses if loss.until_step is not None}
    cuts |= {*checked.router.needs.begins.values()}
    starts = sorted(cut for cut in cuts if cut < end)
    found: list[Cycle] = []
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        for stream in checked.streams:
            cycle = _cycle(checked, stream, start, stop)
            if cycle.updates and checked.meets(stream, start, stop):
                found.append(cycle)
    return tuple(found)


def _cycle(checked: CheckedManifest, stream: str, start: int, stop: int) -> Cycle:
    forwards, graded, updates, sampled = 0.0, 0, {}, False
    for name, slot in checked.manifest.slots.items():
        active = [loss for loss in checked.losses if loss.slot == name and loss.active(start, stream)]
        if start < slot.from_step or not active:
            continue
        updates[name] = slot.updates
        graded += slot.updates * (sum(loss.loss.needs.forwards.graded for loss in active) - _spared(active))
        forwards += slot.updates * _update(checked, active)
        if slot.reuse_sample and sampled:
            whole = slot.reuse_sample == "trajectory"
            forwards -= (slot.updates if whole else 1) * _shared(checked, active)
            forwards += _continued(checked.manifest.sampler.steps, slot.updates) if whole else 0
        if name == STUDENT:
            # A graded call at the rollout's step is the sample that a later slot may take over.
            sampled = any(loss.loss.needs.forwards.rollout and loss.loss.needs.forwards.graded for loss in active)
    return Cycle(stream, start, stop, forwards, graded, updates)


def _shared(checked: CheckedManifest, active: list[CheckedLoss]) -> float:
    """Calls that the terms of one update share: the rollout, ``E[k] = (steps - 1) / 2``, and its sample."""
    needs = [loss.loss.needs.forwards for loss in active]
    rollout = (checked.manifest.sampler.steps - 1) / 2 if any(need.rollout for need in needs) else 0.0
    return rollout + max(need.sample for need in needs)


def _continued(steps: int, updates: int) -> float:
    """Expected calls that take a trajectory from one random step to the last of ``updates`` different ones."""
    visited = min(steps, updates)
    return visited * (steps + 1) / (visited + 1) - 1 - (steps - 1) / 2


def _spared(active: list[CheckedLoss]) -> int:
    """Graded calls at the rollout that a term need not make, since an earlier one of the update has made them."""
    shared = [loss.loss.needs.forwards.shared for loss in active]
    return sum(shared) - max(shared, default=0)


def _update(checked: CheckedManifest, active: list[CheckedLoss]) -> float:
    guidance = 1 if checked.description.guidance_scale == 1.0 else 2
    needs = [loss.loss.needs.forwards for loss in active]
    calls = sum(need.graded + need.plain + guidance * need.teacher for need in needs)
    return _shared(checked, active) - _spared(active) + calls


def teacher_rank(checked: CheckedManifest) -> int:
    """Return the rank that the teacher slot must hold; the student's where no teacher file could be read."""
    wanted = any(part is not None and (part.needs.adapter or part.needs.rank) for part in checked.teachers.values())
    return max(checked.teacher_ranks.values(), default=checked.manifest.slots[STUDENT].rank if wanted else 0)


def memory(checked: CheckedManifest) -> tuple[tuple[Amount, ...], tuple[Amount, ...]]:
    """Return what lies on each device while latents and embeddings are computed, and while it trains."""
    description = checked.description
    weights = Amount("frozen backbone", description.parameters * description.bytes_per_parameter)
    teacher = lora_parameters(description, description.targets, teacher_rank(checked))
    mounted = Amount("teacher slot", teacher * description.bytes_per_parameter)
    trained = [Amount(f"{size.slot}: weights, gradients, Adam (fp32)", TRAINED_BYTES * size.parameters)
               for size in adapter_sizes(checked)]  # fmt: skip
    modules = [Amount(f"{loss.name}: module, gradients, Adam (fp32)", TRAINED_BYTES * loss.loss.needs.parameters)
               for loss in checked.losses if loss.loss.needs.parameters]  # fmt: skip
    averages = [Amount(f"{size.slot}: EMA (fp32)", EMA_BYTES * size.parameters)
                for size in adapter_sizes(checked) if size.ema]  # fmt: skip
    encoders = Amount("text encoder and VAE", description.encoder_bytes)
    slots = Amount("slots: weights (fp32)", 4 * sum(size.parameters for size in adapter_sizes(checked)))
    program = Amount("program: Python, torch, its kernels", PROGRAM_BYTES, estimate=True)
    preparing = (program, weights, encoders, mounted, slots)
    return preparing, (program, weights, mounted, *trained, *modules, *averages, activations(checked))


def activations(checked: CheckedManifest) -> Amount:
    """Estimate what one graded call keeps: noised and source tokens and the prompt, through every block."""
    description, train = checked.description, checked.manifest.train
    # A base in half precision computes in it, whatever the run's mixed precision says of fp32 ones.
    width = 2 if train.mixed_precision == "bf16" or description.bytes_per_parameter <= 2 else 4
    tokens = train.batch_size * (2 * description.latent_tokens + TEXT_TOKENS)
    boundary = tokens * description.hidden * width
    inside = BLOCK_ACTIVATIONS * boundary
    if train.gradient_checkpointing:  # the input of every block, and one block recomputed
        return Amount("activations (checkpointed)", description.layers * boundary + inside, estimate=True)
    return Amount("activations", description.layers * inside, estimate=True)


def disk(checked: CheckedManifest) -> tuple[Amount, ...]:
    """Return what the run leaves on disk."""
    description, sizes = checked.description, adapter_sizes(checked)
    per_step = sum(size.parameters * (SAVED_BYTES + (EMA_BYTES if size.ema else 0)) for size in sizes)
    per_step += sum(SAVED_BYTES * loss.loss.needs.parameters for loss in checked.losses)
    student = next(size for size in sizes if size.slot == STUDENT)
    items = sum(len(rows) for rows in checked.items.values())
    prompts = 3 * TEXT_TOKENS * description.hidden * description.bytes_per_parameter
    latents = 4 * description.latent_tokens * description.channels * (2 if checked.manifest.targets else 1)
    keep = checked.manifest.train.keep
    cache = Amount(f"cache of {items} items", items * (prompts + latents), estimate=True)
    return (
        Amount(f"checkpoints (the last {keep})", keep * per_step),
        *([cache] if items else []),
        Amount("collection (bf16)", EXPORT_BYTES * student.parameters),
    )
