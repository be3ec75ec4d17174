"""A real update for a loss term to be called in, without a run: three networks on a base, a batch, and a list of calls."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest import mock

import torch
from torch import Tensor

from cldistill.adapters.slots import AdapterSlots
from cldistill.data.dataset import Dataset, Example
from cldistill.data.teachers import TeacherBank
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, Batch, Conditioning, EffectInfo, Item, Prompts, Rollout, Route, Tensors
from cldistill.schedule import Schedule
from cldistill.testing.adapters import random_adapter, randomise_slot
from cldistill.testing.pictures import after, picture
from cldistill.testing.tiny_base import TinyBase
from cldistill.testing.tiny_parts import TinyPrompts, TinyRouter, TinyRouterSettings
from cldistill.training.run import LrPhase, Run, SlotConfig, TermModule
from cldistill.training.term_context import TermContext, UpdateMemo

if TYPE_CHECKING:
    from accelerate import Accelerator

EFFECTS = (EffectInfo("invert", "invert the colours"), EffectInfo("soften", "soften the picture"))


@dataclass(frozen=True)
class Call:
    """One call of the backbone."""

    slot: str
    graded: bool
    """True where a graph was built."""
    origin: str
    """The one that asked: ``term``, or the context's ``rollout`` or ``sample`` on its behalf."""
    sigma: tuple[float, ...] = ()
    """Sigma of each item."""
    at: str | None = None
    """Block whose features were asked for; None: the velocity."""


@dataclass
class ObservedContext(TermContext):
    """The engine's own context, which also writes down every call of the backbone."""

    calls: list[Call] = field(default_factory=list)
    origin: str = "term"
    lent: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    """Tensors that the engine lends and uses again (each by name, itself, a copy of it then): a term must not change them."""

    def _predict(
        self, name: str, x: Tensor, sigma: Tensor, conditioning: Conditioning, at: str | None = None
    ) -> Tensor:
        self.calls.append(Call(name, torch.is_grad_enabled(), self.origin, tuple(sigma.detach().tolist()), at))
        return super()._predict(name, x, sigma, conditioning, at)

    def rollout(self) -> Rollout:
        """The student's trajectory, its calls noted as ``rollout``."""
        with self._asked_by("rollout"):
            rollout = super().rollout()
        self.lend({"context.rollout().x": rollout.x, "context.rollout().sigma": rollout.sigma})
        return rollout

    def sample(self) -> Tensor:
        """The student's sample, its call noted as ``sample``."""
        with self._asked_by("sample"):
            sample = super().sample()
        self.lend({"context.sample()": sample})
        return sample

    def lend(self, tensors: Mapping[str, Tensor]) -> None:
        """Note tensors that the term gets, to see afterwards whether it changed them."""
        self.lent += [(name, value, value.detach().clone()) for name, value in tensors.items()]

    @contextmanager
    def _asked_by(self, origin: str) -> Iterator[None]:
        before, self.origin = self.origin, origin
        try:
            yield
        finally:
            self.origin = before


@dataclass(frozen=True)
class SoloAccelerator:
    """A stand-in for accelerate's ``Accelerator`` in tests, for one process; it leaves accelerate's own global state alone."""

    device: torch.device
    num_processes: int = 1
    process_index: int = 0
    is_main_process: bool = True

    def wait_for_everyone(self) -> None:
        """Nobody else is there."""


@contextmanager
def on_rank(run: Run, rank: int, processes: int = 4) -> Iterator[None]:
    """Let a run look as it does on one of several processes, and the environment as a launcher leaves it there."""
    alone = run.accelerator
    run.accelerator = cast("Accelerator", SoloAccelerator(torch.device("cpu"), processes, rank, rank == 0))
    launched = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    try:
        with mock.patch.dict(os.environ, launched):
            yield
    finally:
        run.accelerator = alone


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    """Return all tensors of a batch, each under the name by which a loss term reaches it."""
    found = {} if batch.target is None else {"context.batch.target": batch.target}
    for network in ("student", "teacher", "unconditional"):
        for part in ("source", "prompt"):
            tensors: Tensors = getattr(getattr(batch, network), part)
            found |= {f"context.batch.{network}.{part}[{name!r}]": value for name, value in tensors.items()}
    return found


def tiny_run(
    base: BaseModel | None = None, *, slots: Sequence[str] = ("student", "critic"), rank: int = 2, seed: int = 0,
    schedule: Schedule | None = None, output: Path | None = None, modules: Mapping[str, TermModule] | None = None,
) -> Run:  # fmt: skip
    """Return a run with random slots and a random teacher for each of `EFFECTS`, but neither data nor loss terms."""
    base = base or TinyBase()
    adapters, random = AdapterSlots(base.backbone), KeyedRandom(seed)
    for slot in slots:
        adapters.add(slot, base.adapter_targets, rank, float(rank), random.generator("init", slot))
        randomise_slot(base, adapters, slot)
    isolator = TinyPrompts()
    return Run(
        name="tiny-run",
        output=output or Path("tiny-run"),
        total_steps=10,
        base=base,
        slots=adapters,
        slot_configs=tuple(SlotConfig(slot, rank, float(rank), (LrPhase(0, 1e-3),)) for slot in slots),
        terms=(),
        router=TinyRouter(TinyRouterSettings()),
        dataset=Dataset(base, {}),
        teachers=TeacherBank({e.name: lambda name=e.name: random_adapter(base, name) for e in EFFECTS}),  # type: ignore[misc]
        schedule=schedule or Schedule(steps=4),
        random=random,
        accelerator=cast("Accelerator", SoloAccelerator(torch.device("cpu"))),
        effects=EFFECTS,
        prompts={effect.name: isolator.isolate(effect) for effect in EFFECTS},
        modules=dict(modules or {}),
    )


def tiny_batch(base: BaseModel, stream: str = "effect", size: int = 2, *, targets: bool = True) -> Batch:
    """Return a batch of small pictures: of the first of `EFFECTS`, or of general instructions."""
    general = stream == GENERAL
    effect = EFFECTS[0]
    prompts = TinyPrompts().general("make it darker") if general else TinyPrompts().isolate(effect)
    pool = GENERAL if general else effect.name
    examples = [_example(base, pool, prompts, index, targets) for index in range(size)]
    return Dataset(base, {}).collate(Route(stream, {pool: 1.0}), examples)


def tiny_dataset(base: BaseModel, size: int = 3, effects: Sequence[EffectInfo] = EFFECTS) -> Dataset:
    """Return ``size`` examples of each effect and of the general pool, for a run whose steps are to be made."""
    pools = {effect.name: TinyPrompts().isolate(effect) for effect in effects}
    pools[GENERAL] = TinyPrompts().general("make it darker")
    return Dataset(
        base,
        {
            pool: [_example(base, pool, prompts, index, True) for index in range(size)]
            for pool, prompts in pools.items()
        },
    )


def _example(base: BaseModel, pool: str, prompts: Prompts, index: int, targets: bool) -> Example:
    before = picture(index)
    source, target = base.encode_source([before]), base.encode_target(after(before), [before])
    return Example(
        item=Item(f"{pool}/{index}", pool, (Path(f"{index}.png"),), prompts.teacher),
        shape=base.latent_shape(source),
        batch_key=base.batch_key(source),
        source=lambda: source,
        student=lambda: base.encode_prompt(prompts.student, [before]),
        teacher=lambda: base.encode_prompt(prompts.teacher, [before]),
        unconditional=lambda: base.encode_prompt(prompts.unconditional, [before]),
        target=(lambda: target) if targets else None,
    )


def update_context(
    base: BaseModel | None = None, *, trains: str = "student", stream: str = "effect", size: int = 2, step: int = 0,
    seed: int = 0, targets: bool = True, slots: Sequence[str] = ("student", "critic"), schedule: Schedule | None = None,
    run: Run | None = None, batch: Batch | None = None, term: str = "under-test",
) -> ObservedContext:  # fmt: skip
    """Return the context of one update: call a loss term with it, then look at ``.calls``.

    Args:
        base: Any base model; by default a new `TinyBase`.  It gets slots, so one base serves one context.
        trains: Slot whose calls have a graph.
        stream: ``general`` has the bare base as its teacher, any other the teacher of one effect.
        size: Items in the batch.
        seed: With ``step`` the key of everything that is drawn: the same two, the same bits.
        targets: Whether the batch has targets.
        slots: Trainable slots, each with random weights.
        term: Name of the term in the run: part of its key, and of whatever module it owns.
        run: What `tiny_run` made, to be used again (instead of base, slots and schedule).
        batch: What `tiny_batch` made, to be used again (instead of stream, size and targets).
    """
    run = run or tiny_run(base, slots=slots, schedule=schedule)
    batch = batch or tiny_batch(run.base, stream, size, targets=targets)
    keyed = run.random.child("train", seed, step, trains, 0)
    return ObservedContext(run, step, trains, batch, keyed, keyed.child("term", term), UpdateMemo(keyed), term)
