"""The last phase of validation: pictures and files exist, and adapters fit the base (by their headers alone)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cldistill.adapters.files import FitReport, FittedAdapter, fit
from cldistill.data import items as data
from cldistill.errors import AdapterFormatError, CheckpointError, CldistillError, DataError, ManifestError
from cldistill.manifest.checked import CheckedManifest, Part
from cldistill.manifest.messages import Problem, Problems
from cldistill.manifest.yaml import Loc
from cldistill.records import GENERAL, Item
from cldistill.training.checkpoint import read
from cldistill.training.run import SlotConfig

SHOWN = 10
"""Mistakes of this phase that are listed; fifty missing teachers are one mistake."""


def check_files(checked: CheckedManifest, required: Sequence[Part], *, measuring: bool = False) -> CheckedManifest:
    """Return what `survey_files` found; Problems, one for each missing file, lone picture or adapter that does not fit."""
    found, problems = survey_files(checked, required, measuring=measuring)
    if problems:
        rest = len(problems) - SHOWN
        raise Problems(ManifestError, problems[:SHOWN], [f"... and {rest} more"] if rest > 0 else [])
    return found


def survey_files(
    checked: CheckedManifest, required: Sequence[Part], *, measuring: bool = False, opened: bool = True
) -> tuple[CheckedManifest, list[Problem]]:
    """Return ``checked`` with the items that are there and how adapter files lie on the base, and what is missing.

    ``opened=False`` leaves pictures unopened: one that is damaged counts as there.
    """
    problems: list[Problem] = []
    items, listings = _pictures(checked, problems, opened)
    fits = _teacher_fits(checked, problems)
    for part in required:
        for path in part.needs.files:
            with _at((*part.loc, "options"), problems):
                _must_exist(path)
    starts = {} if measuring else _starts(checked, problems)
    made = {name: part.needs.rank for name, part in checked.teachers.items() if part is not None}
    found = {name: fits[name].ranks[-1] if name in fits else made.get(name) for name in checked.teachers}
    ranks = {name: rank for name, rank in found.items() if rank is not None}  # in its file, or as it will be trained
    checked = replace(checked, items=items, listings=listings)
    return replace(checked, teacher_ranks=ranks, teacher_fits=fits, starts=starts), problems


@contextmanager
def _at(loc: Loc, problems: list[Problem]) -> Iterator[None]:
    """Note an error that is raised inside as a problem at ``loc``."""
    try:
        yield
    except CldistillError as error:
        problems.append((loc, str(error)))


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise DataError(f"no such file or folder ({str(path)!r})")


def _pictures(
    checked: CheckedManifest, problems: list[Problem], opened: bool
) -> tuple[dict[str, tuple[Item, ...]], dict[str, data.Listing]]:
    """Return pool -> its items, and effect -> how its pairs lie there; held-out pictures must only be readable."""
    items: dict[str, tuple[Item, ...]] = {}
    listings: dict[str, data.Listing] = {}
    general, samples, evaluate = checked.manifest.general, checked.manifest.samples, checked.manifest.evaluate
    for index, effect in enumerate(checked.effects):
        if effect.pairs is not None:
            loc = ("effects", index, "pairs")
            with _at(loc, problems):
                wanting = _wants_after(checked, effect.name)
                found = listings[effect.name] = data.listing_of(effect, opened=opened)
                if found.problems and not effect.skip:
                    way = f"{len(found.problems)} pairs are wrong; `data: {{on_error: skip}}` would leave them out"
                    problems += [(loc, text) for text in (way, *found.problems)]
                    continue
                items[effect.name] = tuple(data.pairs_of(effect, found))
                if wanting and any(item.target is None for item in items[effect.name]):
                    raise DataError(
                        f"are pictures without after-pictures, which {wanting[0]} needs; give source/ and target/"
                    )
    if general is not None:
        with _at(("general", "images"), problems):
            _must_exist(general.images)
            with _at(("general", "instructions"), problems):
                skip = checked.manifest.data.on_error == "skip"
                found = data.list_general(general.images, general.instructions, opened=opened or skip)
                problems += [(("general", "instructions"), text) for text in found.problems if not skip]
                items[GENERAL] = found.sound(True).items
    if samples is not None:
        with _at(("samples", "images"), problems):
            if not (shown := data.list_pictures(samples.images)):
                raise DataError(f"{samples.images}: holds no pictures")
            problems += [(("samples", "images"), text) for text in (data.unreadable(shown) if opened else ())]
    if evaluate is not None:
        with _at(("evaluate", "images"), problems):
            shown = data.held_out_pictures(evaluate.images, evaluate.pictures)
            problems += [(("evaluate", "images"), text) for text in (data.unreadable(shown) if opened else ())]
    if evaluate is not None and evaluate.general is not None:
        with _at(("evaluate", "general"), problems):
            data.general_items(evaluate.general.parent, evaluate.general)
    return items, listings


def _wants_after(checked: CheckedManifest, effect: str) -> list[str]:
    """Return who looks at after-pictures; pictures alone are enough where a teacher shows what becomes of them."""
    teacher = checked.teachers[effect]
    wanting = [teacher.name] if teacher is not None and teacher.needs.pairs else []
    wanting += ["targets: {from: pair}"] if effect in checked.paired else []
    if checked.prompts.needs.pairs and effect not in checked.settled_prompts:
        wanting.append(checked.prompts.name)
    return wanting


def _teacher_fits(checked: CheckedManifest, problems: list[Problem]) -> dict[str, FitReport]:
    fits = {}
    for index, (effect, part) in enumerate(checked.teachers.items()):
        if part is not None and part.needs.adapter is not None:
            with _at(("effects", index, "teacher", "options"), problems):
                _must_exist(part.needs.adapter)
                report = fit(part.needs.adapter, checked.description.modules, checked.description.adapter_names).report
                fits[effect] = report.scaled(part.needs.adapter_scale)
    return fits


def _starts(checked: CheckedManifest, problems: list[Problem]) -> dict[str, FittedAdapter]:
    starts = {}
    for name, slot in checked.slots.items():
        if slot.checkpoint is not None:
            with _at(("slots", name, "checkpoint"), problems):
                _goes_on(checked, slot, slot.checkpoint)
        elif isinstance(slot.init, Path):
            with _at(("slots", name, "init"), problems):
                _must_exist(slot.init)
                starts[name] = fit(slot.init, checked.description.modules, checked.description.adapter_names)
                _require_room(starts[name], slot)
    return starts


def _goes_on(checked: CheckedManifest, slot: SlotConfig, folder: Path) -> None:
    """See that a checkpoint holds the slot and its optimiser, with the modules and the rank that the slot has here."""
    name, rank = slot.name, slot.rank
    try:
        found = read(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}; name a folder such as RUN/checkpoints/step-001500") from error
    if missing := [group for group in (name, f"optimizer-{name}") if group not in found.groups]:
        raise CheckpointError(f"{folder} holds no {missing[0]!r}, only {', '.join(found.groups) or 'nothing'}")
    report = fit(folder / f"{name}.safetensors", checked.description.modules).report
    modules, targets = set(report.modules), set(slot.targets)
    if modules != targets or report.ranks != (rank,):
        raise CheckpointError(
            f"{folder}: its slot {name!r} has rank {report.ranks[-1]} and {len(modules)} modules, and the slot here rank "
            f"{rank} and {len(targets)}: to go on, both must be the same"
        )


def _require_room(fitted: FittedAdapter, slot: SlotConfig) -> None:
    """See that a slot can start from a file: what `AdapterSlots.start_from` refuses once the base is loaded."""
    header, report = fitted.header, fitted.report
    name, rank, targets = slot.name, slot.rank, set(slot.targets)
    outside = [module for module in report.modules if module not in targets]
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
