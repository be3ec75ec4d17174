"""`cldistill remove` and `cldistill rename`: a collection's catalogue, which is all that they can change (torch-free).

The catalogue stands in four places, which are written together: ``effects.json``, the header of the weights file, the card,
and the resolved manifest.  The tensors are copied byte for byte.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from cldistill.collection.card import Card
from cldistill.collection.index import CollectionEffect, effects_json, read_index, sample_path
from cldistill.errors import CollectionError, UnsafePathError
from cldistill.storage.files import only_writer, sha256_file, write_aside
from cldistill.storage.headers import read_tensors_header
from cldistill.storage.untrusted import effect_name, inside, parse_json, plain
from cldistill_plugins.incremental.folder import EFFECTS, MANIFEST, CollectionFolder, read_folder

CARD = "README.md"


@dataclass(frozen=True)
class Edited:
    """A collection whose catalogue was changed."""

    path: Path
    effect: CollectionEffect
    card: bool
    """True where the card was changed as well; one that somebody rewrote by hand is left as it is."""


def remove_effect(path: Path, name: str, output: Path | None = None) -> Edited:
    """Take an effect out of a collection's catalogue; in place, or into a new folder ``output``.

    Raises:
        CollectionError: there is no such effect, it is the last one, or the folder is damaged or taken.
    """
    collection = read_folder(path)
    gone = collection.index.effect(name)
    left = [effect for effect in collection.index.effects if effect is not gone]
    if not left:
        raise CollectionError(f"{path}: {name!r} is its only effect; delete the folder instead")
    card = _write(collection, left, (*collection.index.removed, gone), (name, None), output)
    return Edited(output or path, gone, card)


def rename_effect(path: Path, name: str, new: str, output: Path | None = None) -> Edited:
    """Give an effect another name; trigger and prompt, by which the weights know it, stay.

    Raises:
        CollectionError: there is no such effect, the new name is taken or no name, or the folder is damaged or taken.
    """
    collection = read_folder(path)
    before = collection.index.effect(name)
    try:
        effect_name(new)
    except ValueError as error:
        raise CollectionError(f"{error}") from error
    if any(effect.name == new for effect in collection.index.effects):
        raise CollectionError(f"{path}: the collection has an effect {new!r} already; choose another name")
    after = replace(before, name=new)
    effects = [after if effect is before else effect for effect in collection.index.effects]
    card = _write(collection, effects, collection.index.removed, (name, new), output)
    return Edited(output or path, after, card)


def keep_removed(path: Path, removed: Sequence[CollectionEffect]) -> None:
    """Note in a collection what was removed from the one that it grew from: its weights know that, too."""
    collection = read_folder(path)
    known = {effect.trigger for effect in collection.index.removed}
    lacking = [effect for effect in removed if effect.trigger not in known]
    if lacking:
        _write(collection, collection.index.effects, (*collection.index.removed, *lacking), None, None)


def _write(
    collection: CollectionFolder, effects: Sequence[CollectionEffect], removed: Sequence[CollectionEffect],
    change: tuple[str, str | None] | None, output: Path | None,
) -> bool:  # fmt: skip
    """Write the folder anew with other effects; ``change`` is (name, its new name or None for a removal).

    Returns whether the card could be changed as well.  The folder around is held meanwhile, as `cldistill run` holds that of
    a run, which writes there, too.
    """
    index, target = collection.index, (output or collection.path).resolve()  # of a link, what it leads to
    _must_be_free(output)
    if output is None and not os.access(target, os.W_OK):  # to exchange it needs no right to it, but to delete it would
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
    with only_writer(target.parent), write_aside(target) as partial:
        _must_be_free(output)  # two may have been given the same
        shutil.copytree(
            collection.path, partial, dirs_exist_ok=True, ignore=plain_only(collection.path, [index.file.name])
        )
        for path in (partial, *partial.rglob("*")):  # of one that may only be read, the copy is one's own
            path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))
        metadata = dict(index.metadata) | {
            "cldistill.effects": json.dumps(effects_json(effects), ensure_ascii=False),
            "cldistill.removed": json.dumps(effects_json(removed), ensure_ascii=False),
            "cldistill.teachers": _teachers(index.metadata.get("cldistill.teachers", "{}"), change),
            "modelspec.trigger_phrase": ", ".join(effect.trigger for effect in effects if effect.trigger),
            "modelspec.merged_from": ", ".join(effect.name for effect in effects),
        }
        with index.file.open("rb") as old, (partial / index.file.name).open("wb") as new:
            new.write(read_tensors_header(old).encoded(metadata))
            shutil.copyfileobj(old, new, 1024 * 1024)  # in pieces: a file of gigabytes never lies in memory
        listing = dict(collection.listing) | {
            "weights_sha256": sha256_file(partial / index.file.name), "effects": effects_json(effects),
            "removed": effects_json(removed),
        }  # fmt: skip
        _text(partial / EFFECTS, json.dumps(listing, indent=2, ensure_ascii=False) + "\n")
        if change is not None:
            manifest = (collection.path / MANIFEST).read_text(encoding="utf-8")
            _text(partial / MANIFEST, edited_manifest(manifest, collection.manifest, *change))
        complete = _edit_card(partial, collection, effects, removed, change)
        if read_index(collection.path) != index:  # else what another process has just written would be undone
            raise CollectionError(f"{collection.path}: was changed meanwhile; give the same command again")
        return complete


def _must_be_free(output: Path | None) -> None:
    if output is not None and output.exists():
        raise CollectionError(f"{output}: is there already; choose another --output")


def plain_only(folder: Path, leave_out: Iterable[str] = ()) -> Callable[[str, list[str]], set[str]]:
    """Return an ``ignore`` for `shutil.copytree` of ``folder``, which refuses as `plain` does, and links to folders too."""

    def ignore(place: str, names: list[str]) -> set[str]:
        for path in (Path(place, name) for name in names):
            if plain(path, folder).is_dir() and path.is_symlink():
                raise UnsafePathError(f"{path}: is a link to a folder, which a collection does not have; take it out")
        return set(leave_out) & set(names)

    return ignore


def _teachers(text: str, change: tuple[str, str | None] | None) -> str:
    """Move or drop one entry of the header's ``{effect: digest of its teacher}``."""
    if change is None:
        return text
    digests, (name, new) = parse_json(text), change
    if not isinstance(digests, dict):
        raise CollectionError("the header's cldistill.teachers is no map of effects; export the collection again")
    found = digests.pop(name, None)
    if new is not None and found is not None:
        digests[new] = found
    return json.dumps(digests, sort_keys=True)


def _edit_card(
    folder: Path, collection: CollectionFolder, effects: Sequence[CollectionEffect],
    removed: Sequence[CollectionEffect], change: tuple[str, str | None] | None,
) -> bool:  # fmt: skip
    """Exchange the parts of the card that depend on the effects; return whether each was found as it was exported."""
    before = _card(folder, collection, collection.index.effects, collection.index.removed)
    if change is not None:
        _move_sample(folder, *change)
    after = _card(folder, collection, effects, removed)
    path = folder / CARD
    if not path.is_file():
        return False
    text, complete = path.read_text(encoding="utf-8", errors="surrogateescape"), True  # it may be of another hand
    for old, fresh in zip(before.pieces()[:3], after.pieces()[:3], strict=True):
        complete = complete and old in text
        text = text.replace(old, fresh)
    _text(path, text.replace(before.pieces()[3], after.pieces()[3]))
    return complete


def _move_sample(folder: Path, name: str, new: str | None) -> None:
    sample = inside(folder, sample_path(name))
    if sample.is_file() and new is None:
        sample.unlink()
    elif sample.is_file() and new is not None:
        sample.rename(inside(folder, sample_path(new)))


def _card(
    folder: Path, collection: CollectionFolder, effects: Sequence[CollectionEffect], removed: Sequence[CollectionEffect]
) -> Card:
    samples = {e.name: path for e in effects if (folder / (path := sample_path(e.name))).is_file()}
    index = collection.index
    gone = [effect.name for effect in removed]
    return Card(index.title, tuple(effects), index.metadata, index.schedule.steps, None, samples, gone)


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")


NAMED_IN = ("prompts", "router", "samples", "evaluate")
"""Parts of a manifest whose settings may name effects, beside ``effects:``.  A teacher's own options stay: an older
collection knows its effect by the older name."""


def edited_manifest(text: str, data: Mapping[str, Any], name: str, new: str | None) -> str:
    """Return the manifest ``text``, which reads as ``data``, with ``name`` renamed to ``new``, or taken out (None)."""
    effects = [effect for effect in data["effects"] if new is not None or effect["name"] != name]
    effects = [{**effect, "name": new} if effect["name"] == name else effect for effect in effects]
    edited: dict[str, Any] = {**data, "effects": effects}
    for part in NAMED_IN:
        found = edited.get(part)
        if isinstance(found, Mapping) and "use" in found:
            edited[part] = {**found, "options": _members(found.get("options") or {}, name, new)}
        elif isinstance(found, Mapping):
            edited[part] = _members(found, name, new)
    comments = list(takewhile(lambda line: line.startswith("#"), text.splitlines()))
    what = f"taken out: {name}" if new is None else f"renamed: {name} to {new}, with the trigger that it had"
    body = yaml.safe_dump(edited, sort_keys=False, allow_unicode=True)
    return "\n".join([*comments, f"# {what}, after the run; the weights are those of the run", body])


def _members(settings: Any, name: str, new: str | None) -> Any:
    """Edit the values of settings; their own keys are words of the part, whatever an effect is called."""
    if not isinstance(settings, Mapping):  # damaged: for whoever runs it to refuse
        return settings
    return {key: _edited(value, name, new) for key, value in settings.items()}


def _edited(value: Any, name: str, new: str | None) -> Any:
    """Exchange ``name`` where it is the key of a map or an entry of a list."""
    if isinstance(value, Mapping):
        kept = {key: _edited(inner, name, new) for key, inner in value.items() if new is not None or key != name}
        return {new if key == name else key: inner for key, inner in kept.items()}
    if isinstance(value, list):
        entries = [entry for entry in value if new is not None or entry != name]
        return [new if entry == name else _edited(entry, name, new) for entry in entries]
    return value
