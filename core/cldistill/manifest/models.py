"""The manifest: strict, frozen models of what a user may write (`cldistill.manifest.load` reads the file)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationInfo

from cldistill.adapters.hub import pinned, resolve_adapter
from cldistill.component import resolve_path
from cldistill.records import FLOOR, GENERAL
from cldistill.storage.untrusted import effect_name

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Names end up in file names and tables: letters, digits, ``.``, ``_`` and ``-``."""

EffectName = Annotated[str, AfterValidator(effect_name)]
Count = Annotated[int, Field(ge=1)]
Step = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


Pinned = PlainSerializer(pinned, when_used="json")
"""A path in the hub's cache is written down as its hub id, with the commit."""


ManifestPath = Annotated[Path, BeforeValidator(resolve_path)]


class ManifestPart(BaseModel):
    """Base of all: unknown keys are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class PartRef(ManifestPart):
    """A component by name, with its options."""

    use: str
    options: dict[str, Any] = {}


def _resolve_init(value: object, info: ValidationInfo) -> object:
    """Leave ``slot:<name>`` as it is; anything else is a path, or a hub id."""
    is_slot = isinstance(value, str) and value.startswith("slot:")
    return str(value) if is_slot else resolve_adapter(value, info)


class Effect(ManifestPart):
    """A visual edit: the prompt its teacher was trained with, that teacher, and before/after pairs."""

    name: EffectName
    prompt: Annotated[str, Field(min_length=1)]
    teacher: PartRef | None = None
    """Without one, that of the manifest's own key ``teacher:`` at its top, the teacher of every effect that names none."""
    pairs: ManifestPath | None = None
    take: Count | None = None
    """Use only so many of the pairs, spread evenly over them; by default all."""
    targets: Literal["teacher", "pair"] | None = None
    """This effect's own aim, where it is another than that of ``targets: {from: ...}``."""


class General(ManifestPart):
    """Unlabelled pictures with general instructions (a JSONL of ``image`` and ``instruction``)."""

    images: ManifestPath
    instructions: ManifestPath


class Data(ManifestPart):
    """The treatment of pairs and general instructions that are on the disk."""

    on_error: Literal["stop", "skip"] = "stop"
    """``skip`` leaves out what is damaged, incomplete or of two shapes, and counts it; ``stop`` names it and ends."""


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


def _has_torchao(moments: str | None) -> str | None:
    if moments is not None and find_spec("torchao") is None:
        raise ValueError("needs torchao: pip install 'cldistill[quantise]'")
    return moments


class Slot(ManifestPart):
    """A trainable adapter and its AdamW."""

    rank: Count = 128
    alpha: Rate | None = None
    """Defaults to the rank (scale 1)."""
    lr: Rate | Annotated[tuple[LrPhase, ...], Field(min_length=1)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    moments: Annotated[Literal["8bit"] | None, AfterValidator(_has_torchao)] = None
    """``8bit``: Adam's two moments in a byte each (torchao, ``pip install 'cldistill[quantise]'``), not in fp32."""
    warmup: Step = 0
    """Generator steps of linear warm-up where ``lr`` is one number."""
    updates: Count = 1
    """Optimiser updates per generator step."""
    from_step: Step = 0
    init: Annotated[Path | str | None, BeforeValidator(_resolve_init), Pinned] = None
    """A LoRA or collection to start from, or ``slot:student``: a copy of that slot when this one starts."""
    checkpoint: ManifestPath | None = None
    """A checkpoint of an earlier run with a slot of this name, ``RUN/checkpoints/step-001500``: its weights, its
    optimiser's moments and its average go on here, instead of ``init``."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Modules to adapt: full names or endings such as ``to_q``; by default what the base names."""
    reuse_sample: bool | Literal["trajectory"] = False
    """The first update of a step takes the batch and the sample of the student's update; with ``trajectory`` every update
    does, each with the sample at another step of the student's trajectory."""


RESERVED_SLOTS = {
    "teacher": "the engine mounts the effects' teachers under that name",
    "beside": "the engine mounts what works together with another adapter under that name",
    "teacher-training": "a teacher that is trained from pairs has that name while it is trained",
}


def _free_slot_name(name: str) -> str:
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


SlotName = Annotated[Name, AfterValidator(_free_slot_name)]


class Sampler(ManifestPart):
    """The student's few steps."""

    steps: Count = 8
    shift: Rate | Literal["auto"] = 3.0
    """Shift of the sigmas; ``auto``, for which the check puts a number: that of the base's stock pipeline for these steps."""
    integer_timesteps: bool = False
    stochastic: bool = True
    """Fresh noise between steps, as the paper samples; false: Euler's method, as most acceleration LoRAs are sampled."""


class Targets(ManifestPart):
    """The aim of the losses that need targets: the teacher's own output, or the pair's after-picture."""

    origin: Literal["teacher", "pair"] = Field(default="teacher", alias="from")
    steps: Count = 40
    shift: Rate | Literal["auto"] | None = None
    """Shift of the teachers' own schedule (targets, grids, report); ``auto``: as stock samples; by default the student's."""


def _in_parts(value: int, info: ValidationInfo) -> int:
    if value % info.data.get("batch_size", 1):
        raise ValueError("the items of an update are done batch_size at once: give a multiple of train.batch_size")
    return value


class Train(ManifestPart):
    """The loop.  A step is a generator step: one student update with its critic updates."""

    generator_steps: Count = 5000
    batch_size: Count = 1
    """Items at once on each device."""
    global_batch: Annotated[Count, AfterValidator(_in_parts)] | None = None
    """Items of one update on all devices together, done ``batch_size`` at once: a run is then the same on any number of
    devices, and gradients are accumulated where there are few.  By default every device draws ``batch_size`` items."""
    grad_clip: Rate = 10.0
    seed: int = 0
    checkpoint_every: Count = 100
    keep: Count = 3
    max_bad_steps: Count = 10
    mixed_precision: Literal["no", "bf16"] | None = None
    """Of the backbone's calls; LoRA weights, losses and optimisers stay fp32. By default what the launcher says:
    ``accelerate launch --mixed_precision``, else ``no``."""
    ema_device: Literal["cpu"] | None = None
    """``cpu`` keeps the slots' averages in the host's memory; by default they lie beside the weights."""
    lora_copies: bool = False
    """Cast the slots' weights to the precision of the calls once an update and not at every call: 2 bytes a parameter more."""
    gradient_checkpointing: bool | Annotated[float, Field(gt=0, lt=1)] = True
    """Compute each block's activations again in the backward pass instead of keeping them: a third more time, a fraction of
    the memory, the same weights.  ``0.5``: of half the blocks.  A base of a few million parameters does not need it."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto`` is accelerate's choice: a GPU where there is one."""
    deterministic: bool = False
    """Choose kernels that give the same bits every time: needed on CUDA for a resumed run that is byte-equal to an
    unbroken one, and slower there; on the CPU it always is."""

    def micro_batches(self, processes: int = 1) -> int:
        """Return the batches of ``batch_size`` that each process does for one update; 0 where they cannot be shared out."""
        at_once = self.batch_size * processes
        whole, rest = divmod(self.global_batch or at_once, at_once)
        return 0 if rest else whole


class Samples(ManifestPart):
    """Labelled grids drawn while training."""

    every: Count = 100
    images: ManifestPath
    effects: tuple[str, ...] | None = None
    """Rows of the grid; by default every effect."""


TEACHER = "teacher"
RUN = "run:"
RESERVED = ("source", "truth", FLOOR, GENERAL)
"""Names that mean something else beside systems in a report or its folder of pictures."""


def _resolve_file(value: object, info: ValidationInfo) -> object:
    """``run:NAME`` is where ``cldistill run NAME`` writes by default; anything else is a path, or a hub id."""
    if isinstance(value, str) and value.startswith(RUN):
        return Path("runs", value.removeprefix(RUN), "collection").absolute()
    return resolve_adapter(value, info)


def _resolve_adapter(value: object, info: ValidationInfo) -> object:
    """Leave ``teacher`` as it is; a folder of that name is ``./teacher``."""
    return TEACHER if value == TEACHER else _resolve_file(value, info)


def _free_system_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"no system may be called so: a report uses {', '.join(RESERVED)} for other things")
    return name


SystemName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$"), AfterValidator(_free_system_name)]
"""Such as ``teacher@40``."""
AdapterPath = Annotated[Path, BeforeValidator(_resolve_file), Pinned]


class EvaluatedSystem(ManifestPart):
    """One way to make pictures: an adapter, another one beside it, a sampler, and whose prompts."""

    name: SystemName
    title: str | None = None
    """For tables; by default the name."""
    adapter: Annotated[Literal["teacher"] | Path | None, BeforeValidator(_resolve_adapter), Pinned]
    """``teacher``: each effect's own LoRA; null: the bare base; else a collection's folder, an adapter file,
    a hub id, or ``run:NAME`` for ``runs/NAME/collection`` below the current folder."""
    beside: AdapterPath | None = Field(default=None, alias="with")
    """An acceleration LoRA, or any other adapter, that is added on top: both deltas at once."""
    steps: Count | None = None
    """By default ``evaluate.teacher_steps`` with ``euler``; with ``few-step`` what the collection was made for."""
    shift: Rate | None = None
    """By default the teachers' with ``euler``; with ``few-step`` what the collection was made for."""
    sampler: Literal["few-step", "euler"] | None = None
    """``few-step``: the student's own sampler; ``euler``: a teacher's, guided as ``base:`` says.  By default
    ``euler`` where nothing distilled is mounted: for a teacher or the bare base, without ``with``."""
    prompts: Literal["student", "teacher"] | None = None
    """The prompts it hears.  ``student`` (the default for collections): the prompt that the collection's index has for
    the effect; effects that it lacks are left out.  ``teacher`` (the default for all else): the manifest's."""
    effects: tuple[EffectName, ...] | None = None
    """The only effects that it is asked for; by default all."""
    note: str = ""

    @property
    def distilled(self) -> bool:
        """Return whether anything is mounted that the effects' own teachers are not."""
        return self.beside is not None or isinstance(self.adapter, Path)

    @property
    def few_step(self) -> bool:
        """Return whether it samples as the student does."""
        return self.distilled if self.sampler is None else self.sampler == "few-step"


class NotRun(ManifestPart):
    """Something that a report should name although nobody ran it."""

    what: str
    why: str
    cost: str = ""


def _distinct(systems: Sequence[EvaluatedSystem]) -> Sequence[EvaluatedSystem]:
    names = [system.name for system in systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two systems are called {twice[0]!r}; a report has one row for each name")
    return systems


class Evaluate(ManifestPart):
    """The measurement on held-out pictures: at the end of a run, and by ``cldistill eval``."""

    images: ManifestPath
    """Held-out pictures."""
    pictures: Count = 32
    pairs: Step = 0
    """So many pairs of each effect that has some are held out of training, and their after-pictures measured on as truth."""
    teacher_steps: Count = 40
    general: ManifestPath | None = None
    """Held-out general instructions: a JSONL of ``image`` (relative to it) and ``instruction``."""
    general_pictures: Count | None = None
    """Use only so many of them, spread evenly over the file; by default all."""
    metrics: tuple[PartRef, ...] = ()
    systems: Annotated[tuple[EvaluatedSystem, ...], AfterValidator(_distinct)] = ()
    """Compared by ``cldistill eval``; by default the bare base, the teachers at their own and at the student's steps,
    and the student.  A run measures those at its end in any case."""
    compare: tuple[tuple[SystemName, SystemName], ...] = ()
    """Pairs of systems whose paired difference ``cldistill eval`` reports."""
    probes_pictures: Count = 4
    """Pictures an effect for the probes that a metric asks for."""
    stochastic: tuple[EffectName, ...] | None = None
    """Effects that draw, compared on their own, too; by default those of which a metric says so."""
    not_run: tuple[NotRun, ...] = ()
    """Passed on to the report."""
    seed: int = 1
    """Of the noise; systems share it, so that they are compared picture by picture."""


class Manifest(ManifestPart):
    """One run, as it was written and with every default filled in."""

    cldistill: Literal[1]
    name: Name
    requires: tuple[str, ...] = ()
    base: PartRef
    effects: Annotated[tuple[Effect, ...], Field(min_length=1)]
    general: General | None = None
    data: Data = Data()
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
