"""The memory of a run and the sizes of its adapters, counted before anything is loaded.

Counts of parameters are exact.  The memory of activations is an estimate, and is marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cldistill.manifest.checked import CheckedManifest
from cldistill.records import STUDENT, BaseDescription

TRAINED_BYTES = 16
"""Per parameter of a slot, all fp32: weight, gradient, and Adam's two moments."""
EMA_BYTES = 4
PROGRAM_BYTES = 1.0e9
"""A run of the miniature holds 1.9 GB at its peak, pictures and metrics included; a CUDA context half a gigabyte."""
BLOCK_ACTIVATIONS = 34
"""Values that one transformer block keeps for its backward, per token and unit of width (Korthikanti et al. 2022)."""


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
    tokens = train.batch_size * (2 * description.latent_tokens + description.encoded_tokens)
    boundary = tokens * description.hidden * width
    inside = BLOCK_ACTIVATIONS * boundary
    if train.gradient_checkpointing:  # the input of every block, and one block recomputed
        return Amount("activations (checkpointed)", description.layers * boundary + inside, estimate=True)
    return Amount("activations", description.layers * inside, estimate=True)
