"""The plan of a run: what it is and what it costs, as data, before anything is loaded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from cldistill.manifest.checked import CheckedManifest, Part
from cldistill.manifest.prompts import preview_prompts
from cldistill.manifest.resolved import resolve
from cldistill.records import GENERAL, STUDENT, Prompts
from cldistill_plugins.planning.calls import Cycle, cycles
from cldistill_plugins.planning.memory import EMA_BYTES, AdapterSize, Amount, Bill, adapter_sizes, memory

SAVED_BYTES = 12
"""Per parameter in a checkpoint: weight and Adam's two moments."""
EXPORT_BYTES = 2


@dataclass(frozen=True)
class PlannedPart:
    """A part of the run and whose it is."""

    path: str
    kind: str
    name: str
    owner: str
    options: dict[str, Any]


@dataclass(frozen=True)
class PlannedEffect:
    """An effect: who teaches it, and what each network is told."""

    name: str
    teacher: str | None
    teacher_rank: int | None
    teacher_fit: str | None
    """The coverage of the base by the teacher's file: ``840/840 modules, scale 1.0``."""
    pairs: int | None
    """Number of pairs; None where files were not looked at."""
    prompts: Prompts


@dataclass(frozen=True)
class Plan:
    """All that `cldistill plan` prints."""

    name: str
    source: str
    base_parameters: int
    base_modules: int
    """Modules that a slot adapts by default."""
    parts: tuple[PlannedPart, ...]
    effects: tuple[PlannedEffect, ...]
    cycles: tuple[Cycle, ...]
    gradient_checkpointing: float
    """The share of the blocks that is computed again."""
    adapters: tuple[AdapterSize, ...]
    preparing: tuple[Amount, ...]
    sampling: tuple[Amount, ...]
    training: tuple[Amount, ...]
    disk: tuple[Amount, ...]
    resolved: dict[str, Any]

    @property
    def peak_bytes(self) -> float:
        """Peak memory per device: that of the largest stage."""
        return Bill(self.preparing, self.sampling, self.training).peak

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        data = dataclasses.asdict(self)
        for cycle, row in zip(self.cycles, data["cycles"], strict=True):
            row["with_checkpointing"] = cycle.with_checkpointing
        return {**data, "peak_bytes": self.peak_bytes}


def make_plan(checked: CheckedManifest, ranks: int = 1) -> Plan:
    """Work out the plan of a checked manifest, of whose devices ``ranks`` share the base; nothing is loaded."""
    bill = memory(checked, ranks)
    return Plan(
        name=checked.manifest.name,
        source=checked.file.source,
        base_parameters=checked.description.parameters,
        base_modules=len(checked.description.targets),
        parts=tuple(_part(part) for part in checked.parts() if part.loc[0] != "effects"),
        effects=_effects(checked),
        cycles=cycles(checked),
        gradient_checkpointing=float(checked.manifest.train.gradient_checkpointing),
        adapters=adapter_sizes(checked),
        preparing=bill.preparing,
        sampling=bill.sampling,
        training=bill.training,
        disk=disk(checked),
        resolved=resolve(checked),
    )


def _part(part: Part) -> PlannedPart:
    options = part.settings.model_dump(mode="json", by_alias=True)
    owner = part.entry.owner
    whose = f"{owner.plugin} ({owner.distribution} {owner.version})"
    return PlannedPart(part.key, part.component.kind, part.name, whose, options)


def _effects(checked: CheckedManifest) -> tuple[PlannedEffect, ...]:
    prompts = preview_prompts(checked)
    return tuple(
        PlannedEffect(
            name=effect.name,
            teacher=_teacher(checked, effect.name),
            teacher_rank=checked.teacher_ranks.get(effect.name),
            teacher_fit=str(checked.teacher_fits[effect.name]) if effect.name in checked.teacher_fits else None,
            pairs=len(checked.items[effect.name]) if effect.name in checked.items else None,
            prompts=prompts[effect.name],
        )
        for effect in checked.effects
    )


def _teacher(checked: CheckedManifest, effect: str) -> str | None:
    part = checked.teachers[effect]
    if part is None:
        return None
    if effect in checked.needless_teachers:
        return f"{part.name}, not trained: no loss, target or picture of this run asks for it"
    return f"{part.name} {part.needs.adapter.name}" if part.needs.adapter is not None else part.name


def disk(checked: CheckedManifest) -> tuple[Amount, ...]:
    """Return what the run leaves on disk."""
    description, sizes = checked.description, adapter_sizes(checked)
    per_step = sum(size.parameters * (SAVED_BYTES + (EMA_BYTES if size.ema else 0)) for size in sizes)
    per_step += sum(SAVED_BYTES * loss.loss.needs.parameters for loss in checked.losses)
    student = next(size for size in sizes if size.slot == STUDENT)
    items = sum(len(rows) for rows in checked.items.values())
    prompt = (
        description.encoded_tokens * (description.prompt_width or description.hidden) * description.bytes_per_parameter
    )
    alone = 2 * len(checked.effects) + 1 + len(checked.items.get(GENERAL, ()))
    prompts = prompt * (3 * items if description.prompt_sees_pictures else alone)
    latents = 4 * description.latent_tokens * description.channels * (2 if checked.manifest.targets else 1)
    keep = checked.manifest.train.keep
    cache = Amount(f"cache of {items} items", prompts + items * latents, estimate=True)
    return (
        Amount(f"checkpoints (the last {keep})", keep * per_step),
        *([cache] if items else []),
        Amount("collection (bf16)", EXPORT_BYTES * student.parameters),
    )
