"""A run, assembled: plain records that the loop (`train.py`) and the step (`step.py`) work on, without manifest or pydantic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from cldistill.protocols import BaseModel, LossTerm, StreamRouter
from cldistill.records import AdamW, Change, EffectInfo, Prompts

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.console import Console
    from torch import nn

    from cldistill.adapters.slots import AdapterSlots
    from cldistill.data.dataset import Dataset
    from cldistill.data.teachers import TeacherBank
    from cldistill.manifest.checked import CheckedManifest
    from cldistill.prepare import Preparation
    from cldistill.random import KeyedRandom
    from cldistill.schedule import Schedule


@dataclass(frozen=True)
class LrPhase:
    """Learning rate from one generator step on: a linear warm-up, then constant, or a cosine to ``end_lr``."""

    from_step: int
    lr: float
    end_lr: float | None = None
    warmup: int = 0


@dataclass(frozen=True)
class SlotConfig:
    """A trainable adapter and its optimiser: `check` makes it of what the manifest and the base say."""

    name: str
    rank: int
    alpha: float
    lr: tuple[LrPhase, ...]
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    moments: Literal["8bit"] | None = None
    updates: int = 1
    from_step: int = 0
    init: str | Path | None = None
    """None: LoRA's own (B = 0); a path: an adapter file; ``slot:<name>``: a copy of that slot when this one starts."""
    checkpoint: Path | None = None
    """A checkpoint of an earlier run, whose slot of the same name goes on here."""
    ema: float | None = None
    ema_device: str | None = None
    targets: tuple[str, ...] = ()
    reuse_sample: bool | Literal["trajectory"] = False
    """As `cldistill.manifest.models.Slot` says."""


L = TypeVar("L")


@dataclass(frozen=True)
class PlacedLoss(Generic[L]):
    """A loss with its place in a run: `check` makes it, its ``loss`` being the part that will build the loss; `assemble` makes
    a `Term` of that, its ``loss`` being the built one, which the updates call."""

    name: str
    """Unique within the run: the component's name, with ``-2`` and so on where it is used again."""
    loss: L
    slot: str
    """The slot that it trains."""
    streams: frozenset[str] | None = None
    """The streams in which it counts; None: all."""
    weight: float = 1.0
    from_step: int = 0
    until_step: int | None = None
    teacher: bool = False
    """True where it asks the mounted teacher."""
    targets: bool = False
    """True where it needs target latents."""
    shared: bool = False
    """True where it makes a graded call at the rollout, which is made once for all such terms of an update."""

    def active(self, step: int, stream: str) -> bool:
        """Return whether the term counts in a 0-based generator step on a stream."""
        if self.streams is not None and stream not in self.streams:
            return False
        return self.from_step <= step and (self.until_step is None or step < self.until_step)


Term = PlacedLoss[LossTerm]


@dataclass(frozen=True)
class TermModule:
    """The trainable module of a loss term, and its optimiser's settings."""

    module: nn.Module
    optimizer: AdamW


@dataclass
class Run:
    """Everything that the loop needs, built and checked."""

    name: str
    output: Path
    total_steps: int
    base: BaseModel
    slots: AdapterSlots
    slot_configs: tuple[SlotConfig, ...]
    terms: tuple[Term, ...]
    router: StreamRouter
    dataset: Dataset
    teachers: TeacherBank
    schedule: Schedule
    random: KeyedRandom
    accelerator: Accelerator
    effects: tuple[EffectInfo, ...]
    prompts: Mapping[str, Prompts]
    modules: Mapping[str, TermModule] = field(default_factory=dict)
    """Name of a term -> the module that it owns, for those that own one."""
    teacher_schedule: Callable[[int], Schedule] | None = None
    """Steps -> the schedule with which teachers are sampled; None: with the student's shift."""
    batch_size: int = 1
    micro_batches: int | None = None
    """Batches a process and update, of items keyed by their place in the global batch; None: one, keyed by its rank."""
    grad_clip: float = 10.0
    checkpoint_every: int = 100
    keep: int = 3
    max_bad_steps: int = 10
    manifest_digest: str = ""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Plugin -> version and hash of its source, for those that decide what is trained."""
    may_change: Collection[Change] = ()
    """Changes since its checkpoint that the run may go on with; named by flags of the command that started it."""
    plugin_changes: tuple[str, ...] = ()
    """One line for each change of a plugin or of the number of ranks since the run began, and the step after which it was."""
    observers: Sequence[object] = ()
    forwards: int = 0
    """Calls of the backbone so far in this process."""
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered by all ranks for work of the main one, which may call the base: with one that ranks share, the others help."""
    preparation: Preparation | None = None
    """The loaded base and caches that the run works with; None for a run that a test put together."""

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and shows the display."""
        return bool(self.accelerator.is_main_process)

    def slot_config(self, name: str) -> SlotConfig:
        """Return the configuration of a slot."""
        return next(config for config in self.slot_configs if config.name == name)


@dataclass
class ExportedRun:
    """A finished run whose collection is on disk while base and slots are still loaded: what `run_exported` is handed."""

    checked: CheckedManifest
    preparation: Preparation
    collection: Path
    console: Console
    command: str
    """The command that made the run, for the report."""
    report: dict[str, Any]
    """The contents of ``report.json`` so far; observers add keys of their own."""
    results: list[tuple[str, Path]]
    """Files to be named at the end of the run, each with its label."""
