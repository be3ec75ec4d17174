"""`cldistill add`: everything that is decided, and refused, before a weight is read (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cldistill.catalogue import load_catalogue
from cldistill.data.items import list_pairs, list_pictures
from cldistill.errors import CheckpointError, CldistillError, CollectionError
from cldistill.manifest.check import validate
from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.load import parse_manifest
from cldistill.manifest.prompts import preview_prompts
from cldistill.records import Prompts
from cldistill.training.checkpoint import Checkpoint, read
from cldistill_plugins.incremental.beginning import find_beginning, given_beginning
from cldistill_plugins.incremental.effects import Given, NewEffect, read_effect, refuse_known
from cldistill_plugins.incremental.folder import (
    MANIFEST,
    CollectionFolder,
    RunBeside,
    read_folder,
    run_beside,
    sound_manifest,
)
from cldistill_plugins.incremental.growing_manifest import (
    STEPS,
    Growth,
    growing_manifest,
    grown_name,
    recovered,
)
from cldistill_plugins.incremental.names import COLLECTION

SHOWN = 8
"""Effects that a note names one by one."""


@dataclass(frozen=True)
class AddRequest:
    """The growth that the command ``add`` asks for, judged by `prepare_growth`."""

    collection: Path
    effects: Sequence[Given]
    steps: int = STEPS
    mixed: int | None = None
    """Steps of the first phase, on mixed batches; None: a share of all."""
    begun_by: Path | None = None
    """Collection of the run on mixed batches that the collection's own went on from; None: looked for."""
    rehearsed: int | None = None
    """Pictures on which each old effect is rehearsed; None: as many as the run draws, 5 to 20."""
    base: str | None = None
    """The base model's folder, where it was a local one that is not where it was."""
    pictures: Path | None = None
    """Pictures for whatever has none of its own."""
    checkpoint: Path | None = None
    use_checkpoint: bool = True
    overrides: Sequence[str] = ()
    ask: Callable[[str], str] | None = None
    """Asked for the prompt of an effect, by its name, where nothing says it."""


@dataclass(frozen=True)
class Prepared:
    """A growing run, judged by `prepare_growth`: printed by `print_growth`, carried out by `grow`."""

    growth: Growth
    beside: RunBeside | None
    text: str
    """Its manifest as YAML, with absolute paths."""
    checked: CheckedManifest
    notes: Sequence[str]
    """Sentences about whatever cannot be as one might expect, and why."""


def prepare_growth(request: AddRequest) -> Prepared:
    """Read and judge everything that needs no weights; nothing is written.

    Raises:
        CldistillError: a name or trigger that exists, another base, hashes that do not match, pictures that cannot be
            read, or whatever `cldistill check` refuses.
    """
    catalogue = load_catalogue()
    collection = read_folder(request.collection)
    new = [read_effect(given, request.ask) for given in request.effects]
    refuse_known(new, collection.index)
    beside = run_beside(collection)
    if beside is None:
        refuse_address(collection, request.overrides)
    growth, notes = _growth(request, collection, beside, new)
    text = yaml.safe_dump(growing_manifest(growth), sort_keys=False, allow_unicode=True, width=120)
    shown = f"{grown_name(str(growth.known['name']), len(new))} (made by add)"
    checked = validate(parse_manifest(text, shown, collection.path.resolve(), request.overrides), catalogue)
    refuse_removed_triggers(preview_prompts(checked), growth)
    return Prepared(growth, beside, text, checked, notes)


def _growth(
    request: AddRequest, collection: CollectionFolder, beside: RunBeside | None, new: Sequence[NewEffect]
) -> tuple[Growth, list[str]]:
    """Return the parts of the growing run, with sentences about what is left out."""
    own, around = sound_manifest(collection.path), sound_manifest(beside.folder) if beside else None
    known, notes = without_lost(recovered(own, around), collection.path)
    if beside is None and known.pop("observers", None):
        notes.append("its maker's observers are left out")
    if request.base is not None:
        known["base"]["options"]["model"] = request.base
    checkpoint = _checkpoint(request, collection, beside)
    taught = _taught_by(around) if around else None
    begun = given_beginning(request.begun_by) if request.begun_by else find_beginning(around or known)
    growth = Growth(
        collection, known, new, {}, {}, checkpoint, request.steps, request.rehearsed, taught, begun.manifest, request.mixed,
        request.begun_by is not None,
    )  # fmt: skip
    if request.begun_by and growth.first is known:
        raise CollectionError(
            "--begun-by: this collection's own run began on mixed batches, and is followed; leave it out"
        )
    if growth.first is None and begun.lost:
        notes.append(
            f"{begun.lost}, which this collection's run went on from, is not here, so new effects are learned without a first "
            "phase on mixed batches, and slowly; --begun-by COLLECTION says where it is"
        )
    refuse_first_phase(growth)
    return with_pictures(growth, request.pictures, notes), notes


def refuse_first_phase(growth: Growth) -> None:
    """Refuse a length of the first phase that cannot be.

    Raises:
        CollectionError: it leaves no step for the full objective, or nothing says what a first phase of this collection is.
    """
    if growth.mixed and growth.mixed >= growth.steps:
        raise CollectionError(
            f"--mixed {growth.mixed}: the first phase is a part of --steps {growth.steps}, and the full objective follows it; "
            "ask for more steps in all"
        )
    if growth.mixed and growth.first is None:
        raise CollectionError(
            f"--mixed {growth.mixed}: this collection did not begin on mixed batches, or what it went on from is not here; "
            "leave --mixed out, or name what it went on from with --begun-by COLLECTION"
        )


def _taught_by(run: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of the collection that taught a run's effects; None where none did, or it is gone or damaged."""
    teachers = [effect.get("teacher") or {} for effect in run["effects"]]
    for path in (Path(str(teacher["options"]["path"])) for teacher in teachers if teacher.get("use") == COLLECTION):
        with suppress(CldistillError, OSError):
            return sound_manifest(path) if (path / MANIFEST).is_file() else None
    return None


def refuse_address(collection: CollectionFolder, overrides: Sequence[str]) -> None:
    """Refuse to send pictures to an address that stands in a collection without its run, which somebody else may have made.

    Raises:
        CollectionError: naming the address, and how to say that it is meant.
    """
    given = [override.partition("=")[0] for override in overrides]
    kept = {key: value for key, value in collection.manifest.items() if key != "observers"}  # those are left out anyway
    for where, address in _addresses(kept, ""):
        if not any(where == key or where.startswith(f"{key}.") for key in given):
            raise CollectionError(
                f"{collection.path}: its manifest would send pictures to {address}; if you trust that address, say so with "
                f"--set {where}=ADDRESS"
            )


def _addresses(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield key path, as ``--set`` takes it, and text of every address in a manifest, also that of a judging metric."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _addresses(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = (inner.get("name") or inner.get("use")) if isinstance(inner, dict) else None
            yield from _addresses(inner, f"{where}.{name or index}")
    elif isinstance(value, str) and re.fullmatch(r"\w+://\S+", value.strip()):
        yield where, value


def refuse_removed_triggers(prompts: Mapping[str, Prompts], growth: Growth) -> None:
    """Refuse a trigger under which the weights still know an effect that was taken out of the catalogue.

    Raises:
        CollectionError: naming both effects.
    """
    taken = {effect.trigger.casefold(): effect.name for effect in growth.collection.index.removed if effect.trigger}
    for effect in growth.new:
        trigger = prompts[effect.name].trigger
        if trigger.casefold() in taken:
            raise CollectionError(
                f"{effect.name!r} would get the trigger {trigger!r}, under which the weights still know "
                f"{taken[trigger.casefold()]!r}, which was removed; give it another name with --name, or another trigger in "
                "prompts.options"
            )


def _checkpoint(request: AddRequest, collection: CollectionFolder, beside: RunBeside | None) -> Checkpoint | None:
    if not request.use_checkpoint:
        return None
    if request.checkpoint is None:
        return beside.checkpoint if beside else None
    try:
        found = read(request.checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"--checkpoint {request.checkpoint}: {error}") from error
    if found.meta.get("manifest") != collection.manifest_digest or found.step != collection.generator_steps:
        raise CheckpointError(
            f"--checkpoint {request.checkpoint}: is of another run, or of step {found.step} instead of "
            f"{collection.generator_steps}: its optimiser does not belong to these weights; leave it out to begin anew"
        )
    return found


def without_lost(known: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Take out what the manifest shows or measures on pictures that are no longer there; say so."""
    notes = []
    for part, keys, loss in (
        (
            "general",
            ("images", "instructions"),
            "the general stream is left out: what the base could do may be forgotten",
        ),
        ("samples", ("images",), "no samples are drawn"),
        ("evaluate", ("images",), "nothing is measured afterwards"),
    ):
        entry = known.get(part)
        if entry is None:
            continue
        gone = [key for key in keys if not (folder / str(entry[key])).exists()]
        if gone:
            known[part] = None
            notes.append(
                f"{part}.{gone[0]} ({entry[gone[0]]}) is not here, so {loss}; --set {part}.{gone[0]}=… says where"
            )
    return known, notes


def with_pictures(growth: Growth, pictures: Path | None, notes: list[str]) -> Growth:
    """Find pictures for every effect: its pairs; else ``--pictures``; else the sources of an effect that has some.

    Rehearsal and a finished teacher need no after-pictures, and sources of any effect do for all.
    """
    folder, entries = growth.collection.path, {effect["name"]: effect for effect in growth.known["effects"]}
    pairs = {name: folder / str(entry["pairs"]) for name, entry in entries.items() if entry.get("pairs")}
    old = {e.name: pairs[e.name] for e in growth.collection.index.effects if _there(pairs.get(e.name))}
    new = {e.name: e.pairs for e in growth.new if e.pairs is not None}
    lost = [e.name for e in growth.collection.index.effects if e.name not in old]
    lost += [e.name for e in growth.new if e.name not in new]
    if lost:
        spare = pictures or _spare([*old.values(), *new.values()])
        if spare is None:
            raise CollectionError(f"{lost[0]!r} has no pictures to be shown on: give a folder of some with --pictures")
        if not list_pictures(spare):
            raise CollectionError(f"{spare}: holds no pictures")
        some = lost[:SHOWN] if len(lost) <= SHOWN else [*lost[: SHOWN - 1], f"{len(lost) - SHOWN + 1} more"]
        notes.append(f"{', '.join(some)}: shown on the pictures of {spare}")
        old |= {e.name: spare.absolute() for e in growth.collection.index.effects if e.name in lost}
        new |= {e.name: spare.absolute() for e in growth.new if e.name in lost}
    return replace(growth, old_pictures=old, new_pictures=new)


def _there(path: Path | None) -> bool:
    return path is not None and path.exists()


def _spare(found: Sequence[Path]) -> Path | None:
    """Return a folder of before-pictures; None where nothing has pairs."""
    items = [item for path in found for item in list_pairs(path, "", "").items[:1]]
    return next((item.sources[0].parent for item in items if item.target is not None), None)


def must_be_of_base(prepared: Prepared) -> None:
    """Compare the base of the run with the collection's, by its fingerprint: hashes alone, no weight is loaded.

    Raises:
        CollectionError: it is another.
    """
    from cldistill.manifest.prompts import dry_context

    checked = prepared.checked
    base = checked.base.build(replace(dry_context(checked), weights=True))
    prepared.growth.collection.index.must_be_of(base.fingerprint)
