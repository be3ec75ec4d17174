"""The manifest: strict, frozen models of what a user may write (`cldistill.manifest.load` reads the file)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cldistill.manifest.evaluate import Evaluate
from cldistill.manifest.types import Count, ManifestPart, ManifestPath, Name, PartRef, Rate, Step, resolve
from cldistill.manifest.yaml import Loc

__all__ = [
    "Effect", "Evaluate", "General", "LossRef", "LrPhase", "Manifest", "PartRef", "Sampler", "Samples", "Slot", "Targets",
    "Train", "part_refs",
]  # fmt: skip


def _resolve_init(value: object) -> object:
    """Leave ``slot:<name>`` as it is; anything else is a path."""
    return str(value) if isinstance(value, str) and value.startswith("slot:") else resolve(value)


class Effect(ManifestPart):
    """A visual edit: the prompt its teacher was trained with, that teacher, and before/after pairs."""

    name: Name
    prompt: Annotated[str, Field(min_length=1)]
    teacher: PartRef | None = None
    pairs: ManifestPath | None = None
    take: Count | None = None
    """Use only so many of the pairs, spread evenly over them; by default all."""


class General(ManifestPart):
    """Unlabelled pictures with general instructions (a JSONL of ``image`` and ``instruction``)."""

    images: ManifestPath
    instructions: ManifestPath


class LossRef(PartRef):
    """A loss term, the slot it trains, and when and where it counts."""

    slot: Name | None = None
    streams: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    weight: Annotated[float, Field(ge=0)] = 1.0
    from_step: Step = 0
    until_step: Step | None = None


class LrPhase(ManifestPart):
    """Learning rate from one generator step on: linear warm-up, then constant, or a cosine to ``end_lr``."""

    from_step: Step = 0
    lr: Rate
    end_lr: Annotated[float, Field(ge=0)] | None = None
    warmup: Step = 0


class Slot(ManifestPart):
    """A trainable adapter and its AdamW."""

    rank: Count = 128
    alpha: Rate | None = None
    """Defaults to the rank (scale 1)."""
    lr: Rate | Annotated[tuple[LrPhase, ...], Field(min_length=1)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Step = 0
    """Generator steps of linear warm-up where ``lr`` is one number."""
    updates: Count = 1
    """Optimiser updates per generator step."""
    from_step: Step = 0
    init: Annotated[Path | str | None, BeforeValidator(_resolve_init)] = None
    """A LoRA or collection to start from, or ``slot:student``: a copy of that slot when this one starts."""
    checkpoint: ManifestPath | None = None
    """A checkpoint of an earlier run with a slot of this name, ``RUN/checkpoints/step-001500``: its weights, its
    optimiser's moments and its average go on here, instead of ``init``."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Modules to adapt: full names or endings such as ``to_q``; by default what the base names."""
    reuse_sample: bool = False
    """The first update of a step takes the batch and the sample of the student's update."""

    @property
    def scale_alpha(self) -> float:
        """Return alpha, which defaults to the rank."""
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def phases(self) -> tuple[LrPhase, ...]:
        """Return the learning rate as phases, whichever way it was written."""
        return self.lr if isinstance(self.lr, tuple) else (LrPhase(lr=self.lr, warmup=self.warmup),)


RESERVED_SLOTS = {
    "teacher": "the engine mounts the effects' teachers under that name",
    "beside": "the engine mounts what works together with another adapter under that name",
    "apprentice": "a teacher that is trained from pairs has that name while it is trained",
}


def _not_reserved(name: str) -> str:
    if name in RESERVED_SLOTS:
        raise ValueError(f"no slot may be called so: {RESERVED_SLOTS[name]}; choose another name")
    return name


def _distinct_files(slots: dict[str, Slot]) -> dict[str, Slot]:
    """Refuse slots whose files in a checkpoint would have one name: ``x``'s optimiser, and a slot ``optimizer-x``."""
    for name, slot in slots.items():
        for taken in (f"optimizer-{name}", *([f"ema-{name}"] if slot.ema is not None else [])):
            if taken in slots:
                raise ValueError(f"a checkpoint keeps a part of slot {name!r} as {taken!r}: call that slot otherwise")
    return slots


SlotName = Annotated[Name, AfterValidator(_not_reserved)]


class Sampler(ManifestPart):
    """The student's few steps."""

    steps: Count = 8
    shift: Rate = 3.0
    integer_timesteps: bool = False


class Targets(ManifestPart):
    """What the target-based losses aim at: the teacher's own output, or the pair's after-picture."""

    origin: Literal["teacher", "pair"] = Field(default="teacher", alias="from")
    steps: Count = 40
    shift: Rate | None = None
    """Shift of the teachers' own schedule, for targets, grids and the report; by default the student's, `sampler.shift`."""


class Train(ManifestPart):
    """The loop.  A step is a generator step: one student update with its critic updates."""

    generator_steps: Count = 5000
    batch_size: Count = 1
    grad_clip: Rate = 10.0
    seed: int = 0
    checkpoint_every: Count = 100
    keep: Count = 3
    max_bad_steps: Count = 10
    mixed_precision: Literal["no", "bf16"] | None = None
    """Of the backbone's calls; LoRA weights, losses and optimisers stay fp32. By default what the launcher says:
    ``accelerate launch --mixed_precision``, else ``no``."""
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu"] = "auto"
    """``auto`` is accelerate's choice: a GPU where there is one."""
    deterministic: bool = False
    """Choose kernels that give the same bits every time: needed on CUDA for a resumed run that is byte-equal to an
    unbroken one, and slower there; on the CPU it always is."""


class Samples(ManifestPart):
    """Labelled grids drawn while training."""

    every: Count = 100
    images: ManifestPath
    effects: tuple[str, ...] | None = None
    """Rows of the grid; by default every effect."""


class Manifest(ManifestPart):
    """One run, as it was written and with every default filled in."""

    cldistill: Literal[1]
    name: Name
    requires: tuple[str, ...] = ()
    base: PartRef
    effects: Annotated[tuple[Effect, ...], Field(min_length=1)]
    general: General | None = None
    router: PartRef
    prompts: PartRef
    losses: Annotated[tuple[LossRef, ...], Field(min_length=1)]
    slots: Annotated[dict[SlotName, Slot], Field(min_length=1), AfterValidator(_distinct_files)]
    sampler: Sampler = Sampler()
    targets: Targets | None = None
    train: Train = Train()
    samples: Samples | None = None
    observers: tuple[PartRef, ...] = ()
    evaluate: Evaluate | None = None


def part_refs(manifest: Manifest) -> Iterator[tuple[Loc, PartRef]]:
    """Yield every part that a manifest names, with its key path, in the order of validation."""
    yield ("base",), manifest.base
    for index, effect in enumerate(manifest.effects):
        if effect.teacher is not None:
            yield ("effects", index, "teacher"), effect.teacher
    yield ("router",), manifest.router
    yield ("prompts",), manifest.prompts
    for index, loss in enumerate(manifest.losses):
        yield ("losses", index), loss
    for index, observer in enumerate(manifest.observers):
        yield ("observers", index), observer
    for index, metric in enumerate(manifest.evaluate.metrics if manifest.evaluate else ()):
        yield ("evaluate", "metrics", index), metric
