"""The files of a collection that are uploaded: those that an export writes, and nothing else that lies in the folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cldistill.collection.index import WEIGHTS, read_index, sample_path
from cldistill.errors import CollectionError
from cldistill.storage.files import sha256_file
from cldistill.storage.untrusted import inside, parse_json

CARD = "README.md"
NAMED = (WEIGHTS, CARD, "effects.json", "scheduler_config.json", "manifest.resolved.yaml")
BASE_LICENCE = re.compile(r"^Base model: (.+?) The effects carry", re.MULTILINE)


@dataclass(frozen=True)
class Upload:
    """A collection that is ready to be uploaded, made by `read_upload`."""

    folder: Path
    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    """Names of what lies in the folder and is no part of a collection."""
    card: str
    """Its card as it lies there."""
    licence: str | None
    """The licence that the card has already."""
    base_licence: str
    """The base's licence, as the card names it."""
    base: str | None
    """The base's hub id, where it has one."""
    effects: tuple[str, ...]
    prompts: Mapping[str, str]
    samples: Mapping[str, str]
    """Effect -> the path of its picture in the repository."""


def read_upload(folder: Path) -> Upload:
    """Read a collection's folder and see that its files belong together.

    Raises:
        CollectionError: it is no collection, or a file is missing or belongs to another one.
    """
    from cldistill_plugins.hub.card import licence_of

    if not folder.is_dir():
        raise CollectionError(f"{folder}: no such folder; name the one that a run wrote as its collection/")
    index = read_index(folder)
    for name in NAMED:
        if not inside(folder, name).is_file() or (folder / name).is_symlink():
            raise CollectionError(f"{folder / name}: is missing; a collection is the whole folder that a run exported")
    listing = _listing(folder / "effects.json")
    if listing.get("weights_sha256") != sha256_file(index.file):
        raise CollectionError(
            f"{index.file}: is not the file that effects.json was written for; copy the whole folder again"
        )
    names = [effect.name for effect in index.effects]
    pictures = {name: inside(folder, sample_path(name)) for name in names}
    samples = {name: path for name, path in pictures.items() if path.is_file() and not path.is_symlink()}
    files = (*(folder / name for name in NAMED), *samples.values())
    there = {path for path in folder.rglob("*") if path.is_file()}
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CollectionError(f"{folder / CARD}: is not UTF-8 ({error}); save it as UTF-8") from error
    said = BASE_LICENCE.search(card)
    base = index.metadata.get("cldistill.base", "")
    return Upload(
        folder, files, tuple(sorted(path.relative_to(folder).as_posix() for path in there - set(files))), card,
        licence_of(card), f"Base model: {said[1]}" if said else f"Base model: {base}.",
        base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) else None, tuple(names),
        {effect.name: effect.prompt for effect in index.effects},
        {name: sample_path(name) for name in samples},
    )  # fmt: skip


def _listing(path: Path) -> dict[str, object]:
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise CollectionError(f"{path}: is no JSON ({error}); copy the whole folder again") from error
    if not isinstance(found, dict):
        raise CollectionError(f"{path}: holds no object; copy the whole folder again")
    return found
