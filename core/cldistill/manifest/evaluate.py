"""``evaluate:`` of a manifest: what a run measures at its end, and what ``cldistill eval`` compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from cldistill.manifest.types import Count, ManifestPart, ManifestPath, Name, PartRef, Rate, resolve
from cldistill.records import FLOOR, GENERAL

TEACHER = "teacher"
RUN = "run:"
RESERVED = ("source", "truth", FLOOR, GENERAL)
"""Names that mean something else beside systems in a report or its folder of pictures."""


def _resolve_file(value: object) -> object:
    """``run:NAME`` is where ``cldistill run NAME`` writes by default; anything else is a path."""
    if isinstance(value, str) and value.startswith(RUN):
        return Path("runs", value.removeprefix(RUN), "collection").absolute()
    return resolve(value)


def _resolve_adapter(value: object) -> object:
    """Leave ``teacher`` as it is; a folder of that name is ``./teacher``."""
    return TEACHER if value == TEACHER else _resolve_file(value)


def _not_reserved(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"no system may be called so: a report uses {', '.join(RESERVED)} for other things")
    return name


SystemName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$"), AfterValidator(_not_reserved)]
"""Such as ``teacher@40``."""
AdapterPath = Annotated[Path, BeforeValidator(_resolve_file)]


class EvaluatedSystem(ManifestPart):
    """One way to make pictures: an adapter, another one beside it, a sampler, and whose prompts."""

    name: SystemName
    title: str | None = None
    """For tables; by default the name."""
    adapter: Annotated[Literal["teacher"] | Path | None, BeforeValidator(_resolve_adapter)]
    """``teacher``: each effect's own LoRA; null: the bare base; else a collection's folder, an adapter file, or
    ``run:NAME`` for ``runs/NAME/collection`` below the current folder."""
    beside: AdapterPath | None = Field(default=None, alias="with")
    """An acceleration LoRA, or any other adapter, that is added on top: both deltas at once."""
    steps: Count | None = None
    """By default ``evaluate.teacher_steps`` with ``euler``; with ``few-step`` what the collection was made for."""
    shift: Rate | None = None
    """By default the teachers' with ``euler``; with ``few-step`` what the collection was made for."""
    sampler: Literal["few-step", "euler"] | None = None
    """``few-step``: the student's consistency sampling; ``euler``: a teacher's, guided as ``base:`` says.  By default
    ``euler`` where nothing distilled is mounted: for a teacher or the bare base, without ``with``."""
    prompts: Literal["student", "teacher"] | None = None
    """What the system is told.  ``student`` (the default for collections): the prompt that the collection's index has for
    the effect; effects that it lacks are left out.  ``teacher`` (the default for all else): the manifest's."""
    effects: tuple[Name, ...] | None = None
    """The only effects that it is asked for; by default all."""
    note: str = ""

    @property
    def distilled(self) -> bool:
        """Whether anything is mounted that the effects' own teachers are not."""
        return self.beside is not None or isinstance(self.adapter, Path)

    @property
    def few_step(self) -> bool:
        """Whether it samples as the student does."""
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
    """What is measured: at the end of a run, and by ``cldistill eval``."""

    images: ManifestPath
    """Held-out pictures."""
    pictures: Count = 32
    teacher_steps: Count = 40
    general: ManifestPath | None = None
    """Held-out general instructions: a JSONL of ``image`` (relative to it) and ``instruction``."""
    general_pictures: Count | None = None
    """Use only so many of them, spread evenly over the file; by default all."""
    metrics: tuple[PartRef, ...] = ()
    systems: Annotated[tuple[EvaluatedSystem, ...], AfterValidator(_distinct)] = ()
    """What ``cldistill eval`` compares; by default the bare base, the teachers at their own and at the student's steps,
    and the student.  A run measures those at its end in any case."""
    compare: tuple[tuple[SystemName, SystemName], ...] = ()
    """Pairs of systems whose paired difference ``cldistill eval`` reports."""
    probes_pictures: Count = 4
    """Pictures an effect for the probes that a metric asks for."""
    stochastic: tuple[Name, ...] | None = None
    """Effects that draw, compared on their own, too; by default those of which a metric says so."""
    not_run: tuple[NotRun, ...] = ()
    """Passed on to the report."""
    seed: int = 1
    """Of the noise; systems share it, so that they are compared picture by picture."""
