"""The last phase of validation: pictures and files exist, and adapters fit the base (by their headers alone)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cldistill.data.items import general_items, held_out_pictures, list_pictures, pairs_of
from cldistill.errors import AdapterFormatError, CheckpointError, CldistillError, DataError, ManifestError
from cldistill.manifest.checked import CheckedManifest, Part
from cldistill.manifest.rules import required_parts
from cldistill.manifest.yaml import Loc
from cldistill.records import GENERAL, Item
from cldistill.training.run import SlotConfig

if TYPE_CHECKING:
    from cldistill.adapters.files import FitReport
    from cldistill.adapters.header import AdapterHeader

SHOWN = 10
"""Mistakes of this phase that are listed; fifty missing teachers are one mistake."""

T = TypeVar("T")


class _Files:
    """Collects what is missing while it goes through the manifest."""

    def __init__(self, checked: CheckedManifest) -> None:
        self.checked = checked
        self.problems: list[str] = []

    def attempt(self, loc: Loc, action: Callable[[], T]) -> T | None:
        """Run ``action``; an error becomes a problem at ``loc``."""
        try:
            return action()
        except CldistillError as error:
            self.problems.append(f"{self.checked.file.where(*loc)}: {error}")
            return None

    def exists(self, loc: Loc, path: Path) -> bool:
        """Note a file or folder that is not there."""
        if path.exists():
            return True
        self.problems.append(f"{self.checked.file.where(*loc)}: no such file or folder ({str(path)!r})")
        return False


def check_files(checked: CheckedManifest, *, measuring: bool = False) -> CheckedManifest:
    """Return what `survey_files` found.

    Raises:
        ManifestError: with one line for every missing file, picture without a partner, or adapter that does not fit.
    """
    found, problems = survey_files(checked, measuring=measuring)
    if problems:
        rest = len(problems) - SHOWN
        more = [f"... and {rest} more"] if rest > 0 else []
        raise ManifestError("\n".join([*problems[:SHOWN], *more]))
    return found


def survey_files(checked: CheckedManifest, *, measuring: bool = False) -> tuple[CheckedManifest, list[str]]:
    """Return ``checked`` with the items that are there and how the teachers' files lie on the base, and what is missing."""
    files = _Files(checked)
    items = _items(files)
    _pictures(files)
    fits = dict(_teacher_fits(files))
    for part in required_parts(checked, measuring):
        for path in part.needs.files:
            files.exists((*part.loc, "options"), path)
    for name, slot in checked.slots.items() if not measuring else ():
        if slot.checkpoint is not None:
            files.attempt(("slots", name, "checkpoint"), partial(_goes_on, checked, slot, slot.checkpoint))
        elif isinstance(slot.init, Path) and (found := _fit(files, ("slots", name, "init"), slot.init)) is not None:
            files.attempt(("slots", name, "init"), partial(_require_room, *found, slot))
    seen = replace(checked, items=items, teacher_ranks=_teacher_ranks(checked, fits), teacher_fits=fits)
    return seen, files.problems


def _items(files: _Files) -> dict[str, tuple[Item, ...]]:
    items: dict[str, tuple[Item, ...]] = {}
    for index, effect in enumerate(files.checked.effects):
        if effect.pairs is not None:
            found = files.attempt(("effects", index, "pairs"), partial(pairs_of, effect))
            if found is None:
                continue
            items[effect.name] = tuple(found)
            if any(item.target is None for item in found):
                files.attempt(("effects", index, "pairs"), partial(_without_after, files.checked, effect.name))
    general = files.checked.manifest.general
    if general is not None and files.exists(("general", "images"), general.images):
        found = files.attempt(("general", "instructions"), partial(general_items, general.images, general.instructions))
        if found is not None:
            items[GENERAL] = tuple(found)
    return items


def _without_after(checked: CheckedManifest, effect: str) -> None:
    """Pictures alone are enough where a teacher shows what becomes of them, and nothing looks at after-pictures."""
    teacher, targets = checked.teachers[effect], checked.manifest.targets
    wanting = [teacher.name] if teacher is not None and teacher.needs.pairs else []
    wanting += ["targets: {from: pair}"] if targets is not None and targets.origin == "pair" else []
    if checked.prompts.needs.pairs and effect not in checked.settled_prompts:
        wanting.append(checked.prompts.name)
    if wanting:
        raise DataError(f"are pictures without after-pictures, which {wanting[0]} needs; give source/ and target/")


def _pictures(files: _Files) -> None:
    samples, evaluate = files.checked.manifest.samples, files.checked.manifest.evaluate
    if samples is not None:
        files.attempt(("samples", "images"), partial(_some_pictures, samples.images))
    if evaluate is not None:
        files.attempt(("evaluate", "images"), partial(held_out_pictures, evaluate.images, evaluate.pictures))
        if evaluate.general is not None:
            files.attempt(("evaluate", "general"), partial(general_items, evaluate.general.parent, evaluate.general))


def _some_pictures(folder: Path) -> None:
    if not list_pictures(folder):
        raise DataError(f"{folder}: holds no pictures")


def _teacher_fits(files: _Files) -> Iterator[tuple[str, FitReport]]:
    for index, effect in enumerate(files.checked.effects):
        part: Part | None = files.checked.teachers[effect.name]
        if part is not None and part.needs.adapter is not None:
            found = _fit(files, ("effects", index, "teacher", "options"), part.needs.adapter)
            if found is not None:
                yield effect.name, found[1].scaled(part.needs.adapter_scale)


def _teacher_ranks(checked: CheckedManifest, fits: Mapping[str, FitReport]) -> dict[str, int]:
    """Return effect -> the largest rank in its teacher's file, or the rank that its source will train."""
    made = {name: part.needs.rank for name, part in checked.teachers.items() if part is not None}
    ranks = {name: fits[name].ranks[-1] if name in fits else made.get(name) for name in checked.teachers}
    return {name: rank for name, rank in ranks.items() if rank is not None}


def _fit(files: _Files, loc: Loc, path: Path) -> tuple[AdapterHeader, FitReport] | None:
    """Return an adapter file's header and how it lies on the base, if it fits."""
    from cldistill.adapters.files import fit
    from cldistill.adapters.header import read_header

    if not files.exists(loc, path):
        return None

    def look() -> tuple[AdapterHeader, FitReport]:
        header = read_header(path)
        return header, fit(header, files.checked.description)

    return files.attempt(loc, look)


def _goes_on(checked: CheckedManifest, slot: SlotConfig, folder: Path) -> None:
    """See that a checkpoint holds the slot and its optimiser, with the modules and the rank that the slot has here."""
    from cldistill.adapters.files import fit
    from cldistill.adapters.header import read_header
    from cldistill.training.checkpoint import read

    name, rank = slot.name, slot.rank
    try:
        found = read(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}; name a folder such as RUN/checkpoints/step-001500") from error
    if missing := [group for group in (name, f"optimizer-{name}") if group not in found.groups]:
        raise CheckpointError(f"{folder} holds no {missing[0]!r}, only {', '.join(found.groups) or 'nothing'}")
    header = read_header(folder / f"{name}.safetensors")
    modules, targets = set(fit(header, checked.description).names.values()), set(slot.targets)
    if modules != targets or header.ranks != (rank,):
        raise CheckpointError(
            f"{folder}: its slot {name!r} has rank {header.ranks[-1]} and {len(modules)} modules, and the slot here rank "
            f"{rank} and {len(targets)}: to go on, both must be the same"
        )


def _require_room(header: AdapterHeader, report: FitReport, slot: SlotConfig) -> None:
    """See that a slot can start from a file: what `cldistill.adapters.slots.overlay` refuses once the base is loaded."""
    name, rank, targets = slot.name, slot.rank, set(slot.targets)
    outside = [module for module in report.names.values() if module not in targets]
    if outside:
        raise AdapterFormatError(
            f"{header.path}: {len(outside)} of its {report.total} modules are not among the {len(targets)} targets of the "
            f"slot {name!r}, the first: {outside[0]!r}; extend the slot's targets"
        )
    if any(module.kind != "lora" for module in header.modules.values()):
        raise AdapterFormatError(f"{header.path}: the slot {name!r} cannot go on from a LoKr; start it from a LoRA")
    if report.ranks[-1] > rank:
        raise AdapterFormatError(
            f"{header.path}: its rank {report.ranks[-1]} is more than the {rank} of the slot {name!r}; "
            f"set slots.{name}.rank to {report.ranks[-1]} or more"
        )
