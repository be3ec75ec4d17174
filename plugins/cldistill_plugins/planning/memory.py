"""The memory of a run and the sizes of its adapters, counted before anything is loaded.

Counts of parameters are exact.  The memory of activations is an estimate, and is marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cldistill.manifest.checked import CheckedManifest
from cldistill.records import STUDENT, BaseDescription

TRAINED_BYTES = 12
"""Per parameter of a slot, all fp32: weight and Adam's two moments."""
FROZEN_BYTES = 4
"""The same of a slot that is called and not trained: its weight."""
TRAINED_BYTES_8BIT = 4 + 2 * (1 + 4 / 256)
"""The same where the moments are in 8 bits, with a scale in fp32 for 256 of them."""
GRADIENT_BYTES = 4
"""Slots are updated one after another, so the gradients of one live at a time."""
EMA_BYTES = 4
COPY_BYTES = 2
"""Per parameter of a slot, where ``train.lora_copies`` keeps it in the precision of the calls as well."""
PROGRAM_BYTES = 1.0e9
"""A run of the miniature holds 1.9 GB at its peak, pictures and metrics included; a CUDA context half a gigabyte, and the VAE
that stays for grids a quarter."""
BLOCK_ACTIVATIONS = 33
"""Values that one transformer block keeps for its backward, per token and unit of width: measured (`tests/plugins/planning`);
34 by Korthikanti et al. 2022."""
WHOLE_GRAPH = 18
"""The same for what a block's backward makes beside the activations of all blocks."""
ONE_BLOCK = 40
"""The same for a checkpointed block that is computed again, with its backward."""

GATHERED_BLOCKS = 3
"""Blocks of a sharded base that lie whole on a rank at once: the one in use, and the next one twice, as it arrives and in its
place (FSDP2 copies the gathered bytes into parameters)."""

DECODED_BYTES = {"int8": 4, "fp8": 4, "nf4": 29}
"""Kind of quantisation -> bytes that each number of a weight takes while it is decoded: nf4's is looked up by int64."""


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


@dataclass(frozen=True)
class Bill:
    """The memory of a run on each device, stage after stage."""

    preparing: tuple[Amount, ...]
    """While latents and embeddings are computed."""
    sampling: tuple[Amount, ...]
    """While teachers are trained and sampled by a base that is shared out only afterwards; empty where none is."""
    training: tuple[Amount, ...]

    @property
    def peak(self) -> float:
        """The bytes of the largest stage."""
        return max(sum(amount.bytes for amount in stage) for stage in (self.preparing, self.sampling, self.training))


def memory(checked: CheckedManifest, ranks: int = 1) -> Bill:
    """Return what lies on each device; ``ranks`` is the number of those that share the base (FSDP), 1 where none do."""
    description, sizes = checked.description, adapter_sizes(checked)
    whole = Amount(
        "frozen backbone", description.weight_bytes or description.parameters * description.bytes_per_parameter
    )
    weights = (whole,) if ranks == 1 else shared_out(checked, whole.bytes, ranks)
    teacher = lora_parameters(description, description.targets, teacher_rank(checked))
    mounted = Amount("teacher slot", teacher * description.bytes_per_parameter)
    kinds = {size.slot: _kind(checked, size.slot) for size in sizes}
    held = [Amount(f"{size.slot}: {kinds[size.slot][0]}", kinds[size.slot][1] * size.parameters) for size in sizes]
    owned = {loss.name: loss.loss.needs.parameters for loss in checked.losses if loss.loss.needs.parameters}
    modules = [Amount(f"{name}: module, Adam (fp32)", TRAINED_BYTES * count) for name, count in owned.items()]
    gradients = Amount("gradients of the largest slot (fp32)", GRADIENT_BYTES * max(
        size.parameters + sum(owned[loss.name] for loss in checked.losses if loss.slot == size.slot and loss.name in owned)
        for size in sizes if any(loss.slot == size.slot for loss in checked.losses)
    ))  # fmt: skip
    quantise = checked.base.settings.model_dump().get("quantise")
    largest = max((tall * wide for tall, wide in description.modules.values()), default=0)
    decoded = [Amount("the largest weight, decoded", DECODED_BYTES[quantise] * largest)] if quantise else []
    averages = [Amount(f"{size.slot}: EMA (fp32)", EMA_BYTES * size.parameters)
                for size in sizes if size.ema and checked.manifest.train.ema_device is None]  # fmt: skip
    kept = COPY_BYTES * sum(size.parameters for size in sizes) if checked.manifest.train.lora_copies else 0
    copies = [Amount("slots: copies in the precision of the calls", kept)] if kept else []
    encoders = Amount("text encoder and VAE", description.encoder_bytes)
    program = Amount("program: Python, torch, its kernels", PROGRAM_BYTES, estimate=True)
    # The encoders have left when the backbone is read.
    training = (program, *weights, *decoded, mounted, *held, *modules, gradients, *averages, *copies,
                activations(checked))  # fmt: skip
    return Bill(
        (program, encoders), () if ranks == 1 else (program, whole, *_sampling(checked, mounted, teacher)), training
    )


def _kind(checked: CheckedManifest, slot: str) -> tuple[str, float]:
    """Return what is kept of a slot, and its bytes a parameter: one that no loss trains has no moments."""
    if all(loss.slot != slot for loss in checked.losses):
        return "weights (fp32)", FROZEN_BYTES
    if checked.slots[slot].moments == "8bit":
        return "weights (fp32), Adam (8 bits)", TRAINED_BYTES_8BIT
    return "weights, Adam (fp32)", TRAINED_BYTES


def shared_out(checked: CheckedManifest, whole: float, ranks: int) -> tuple[Amount, Amount]:
    """Return a rank's part of a base of ``whole`` bytes, its blocks sharded, and the blocks that are gathered at once."""
    description, blocks = checked.description, dict[str, int]()
    for name, (tall, wide) in description.modules.items():
        block = next((block for block in description.blocks if name.startswith(f"{block}.")), None)
        if block is not None:
            blocks[block] = blocks.get(block, 0) + tall * wide
    each = whole / description.parameters
    inside = each * sum(blocks.values())
    return (
        Amount(f"frozen backbone, its blocks shared by {ranks} ranks", whole - inside + inside / ranks),
        Amount(
            f"{GATHERED_BLOCKS} blocks, gathered",
            GATHERED_BLOCKS * each * max(blocks.values(), default=0),
            estimate=True,
        ),
    )


def _sampling(checked: CheckedManifest, mounted: Amount, teacher: int) -> Iterator[Amount]:
    """Yield what lies beside a whole base while teachers are trained and sampled."""
    yield Amount("slots (fp32)", GRADIENT_BYTES * sum(size.parameters for size in adapter_sizes(checked)))
    if set(checked.trained_teachers) - checked.needless_teachers:
        yield Amount("a teacher in training (fp32)", (TRAINED_BYTES + GRADIENT_BYTES) * teacher)
    else:
        yield mounted
    yield activations(checked)


def activations(checked: CheckedManifest) -> Amount:
    """Estimate what one graded call keeps: noised and source tokens and the prompt, through every block."""
    description, train = checked.description, checked.manifest.train
    # A base in half precision computes in it, whatever the run's mixed precision says of fp32 ones.
    width = 2 if train.mixed_precision == "bf16" or description.bytes_per_parameter <= 2 else 4
    tokens = train.batch_size * (2 * description.latent_tokens + description.encoded_tokens)
    boundary = tokens * description.hidden * width
    share = float(train.gradient_checkpointing)
    kept = description.layers * (share + (1 - share) * BLOCK_ACTIVATIONS)  # a checkpointed block keeps its input alone
    inside = share * ONE_BLOCK + (1 - share) * WHOLE_GRAPH
    name = "activations" + (" (checkpointed)" if share == 1 else f" ({share:.0%} checkpointed)" if share else "")
    return Amount(name, (kept + inside) * boundary, estimate=True)
