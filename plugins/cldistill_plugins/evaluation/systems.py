"""From ``evaluate.systems`` to ways of making pictures: which adapters, which sampler, and what each system is told."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from cldistill.adapters.files import load_adapter
from cldistill.adapters.header import find_file, read_header
from cldistill.collection.index import CollectionIndex, read_index
from cldistill.errors import CollectionError
from cldistill.manifest.models import TEACHER, EvaluatedSystem
from cldistill.records import GENERAL, EffectInfo, Prompts
from cldistill.sampling.image_generator import SamplingConfig
from cldistill.schedule import Schedule
from cldistill.weights import AdapterState
from cldistill_plugins.evaluation.setup import EvaluationSetup

KEPT = 3
"""Adapter files that stay in memory: those of the system whose turn it is, and the next one's neighbours."""


class AdapterCache:
    """Adapter files, loaded when an evaluated system needs them; the last few are kept."""

    def __init__(self, setup: EvaluationSetup) -> None:
        base = setup.checked.description
        self.load = lru_cache(maxsize=KEPT)(lambda path: load_adapter(path, base.modules, base.adapter_names))


@dataclass(frozen=True)
class OpenedSystem:
    """An evaluated system with what it mounts, made by `open_systems`: it says how each of its pictures is made."""

    spec: EvaluatedSystem
    setup: EvaluationSetup
    files: AdapterCache | None = field(default=None, repr=False)
    """None where no file is mounted."""
    index: CollectionIndex | None = None
    """Of its adapter, where that is a collection."""
    beside: CollectionIndex | None = None
    """Of what is added on top, where that is a collection."""
    slot: str | None = None
    """A slot of the run that has just ended: it holds what ``spec.adapter`` was exported from, and works instead."""
    slot_digest: str = ""
    pools: Collection[str] | None = None
    """The only pools that it is measured on; by default all."""

    @property
    def name(self) -> str:
        """Its name in the report."""
        return self.spec.name

    @property
    def schedule(self) -> Schedule:
        """Its sampler's steps: its own, else those that its collection was made for, else the manifest's."""
        spec, setup = self.spec, self.setup
        if not spec.few_step:
            evaluate = setup.checked.manifest.evaluate
            assert evaluate is not None
            own = setup.checked.teacher_schedule(spec.steps or evaluate.teacher_steps)
            return own if spec.shift is None else Schedule(own.steps, spec.shift)
        index, own = self.index or self.beside, setup.checked.student_schedule
        if index is not None:
            own = index.schedule
        return replace(own, steps=spec.steps or own.steps, shift=spec.shift or own.shift)

    @property
    def evaluations(self) -> int:
        """Calls of the backbone for one picture."""
        return SamplingConfig(self.schedule, self.spec.few_step).evaluations(self.setup.base)

    @property
    def is_reference(self) -> bool:
        """Return whether it edits the general pool by the bare base, at that one's own sampling."""
        return not self.spec.distilled and not self.spec.few_step

    def is_asked(self, pool: str) -> bool:
        """Return whether it is to be measured on a pool at all."""
        if pool != GENERAL and self.spec.effects is not None and pool not in self.spec.effects:
            return False
        if pool != GENERAL and self.spec.adapter == TEACHER and self.setup.checked.teachers[pool] is None:
            return False  # else the bare base would stand there under the name of the effect's own LoRA
        return self.pools is None or pool in self.pools

    def prompts(self, effect: EffectInfo) -> Prompts | None:
        """Return what it is told for an effect, whatever its sampler, or None where its collection lacks the effect."""
        ours = self.setup.prompts[effect.name]
        if (self.spec.prompts or ("teacher" if self.index is None else "student")) == "teacher":
            return replace(ours, student=ours.teacher)
        if self.index is None:
            return replace(ours, teacher=ours.student)
        known = {entry.name: entry for entry in self.index.effects}
        if effect.name not in known:
            return None
        entry = known[effect.name]
        return Prompts(entry.prompt, entry.prompt, ours.unconditional, entry.trigger)

    def config(self, pool: str) -> SamplingConfig:
        """Return how it edits a pool: an effect's, one of an effect's probes, or the general one (without a teacher)."""
        effect = pool.partition("/")[0]
        if self.slot is not None:
            return SamplingConfig(self.schedule, self.spec.few_step, slot=self.slot, slot_digest=self.slot_digest)
        own = self._teacher(effect) if self.spec.adapter == TEACHER else self._file(self.spec.adapter)
        beside = self._file(self.spec.beside)
        config = SamplingConfig(
            self.schedule, self.spec.few_step, adapters=tuple(state for state in (own, beside) if state is not None)
        )
        if own is not None and own.few_step is not None and beside is None and self.spec.sampler is None:
            return replace(
                config, schedule=own.few_step, few_step=True
            )  # a frozen collection teaches by its own few steps
        return config

    def _teacher(self, effect: str) -> AdapterState | None:
        return None if effect == GENERAL else self.setup.teachers.state(effect)

    def _file(self, path: Path | str | None) -> AdapterState | None:
        return self.files.load(path) if isinstance(path, Path) and self.files is not None else None


def open_systems(setup: EvaluationSetup, systems: tuple[EvaluatedSystem, ...]) -> list[OpenedSystem]:
    """Return the systems, their files looked at by their headers.

    Raises:
        CollectionError: a collection was made on another base than the manifest's.
    """
    files = AdapterCache(setup)
    return [
        OpenedSystem(spec, setup, files, _index(setup, spec.adapter), _index(setup, spec.beside)) for spec in systems
    ]


def _index(setup: EvaluationSetup, path: Path | str | None) -> CollectionIndex | None:
    """Return a collection's index; a plain adapter file has none."""
    if not isinstance(path, Path) or "cldistill.effects" not in read_header(find_file(path)).metadata:
        return None
    index = read_index(path)
    index.must_be_of(setup.base.fingerprint)
    if not index.effects:
        raise CollectionError(f"{index.file}: its index lists no effects; export the collection again")
    return index
