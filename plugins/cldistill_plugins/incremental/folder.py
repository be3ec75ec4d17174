"""A collection's folder as a run wrote it, its hashes checked, and what of that run still lies beside it (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.collection.index import CollectionIndex, effects_json, read_index
from cldistill.errors import CheckpointError, CollectionError, ManifestError
from cldistill.manifest.yaml import parse
from cldistill.storage.files import sha256_file
from cldistill.storage.untrusted import inside, leads_out, parse_json
from cldistill.training.checkpoint import Checkpoint, read
from cldistill_plugins.resuming.api import plain, read_stored

EFFECTS = "effects.json"
MANIFEST = "manifest.resolved.yaml"


@dataclass(frozen=True)
class CollectionFolder:
    """A collection whose files belong together."""

    path: Path
    index: CollectionIndex
    listing: Mapping[str, Any]
    """``effects.json``."""
    manifest: Mapping[str, Any]
    """The manifest that made it; of local paths only the last part is left."""

    @property
    def manifest_digest(self) -> str:
        """Digest of the manifest that made it, as its run's checkpoints hold it."""
        return self.index.metadata.get("cldistill.manifest_sha256", "")

    @property
    def generator_steps(self) -> int:
        """Generator steps that made the weights; raises CollectionError where the header has no number."""
        written = self.index.metadata.get("cldistill.generator_steps", "0")
        try:
            return int(written)
        except ValueError as error:
            raise CollectionError(
                f"{self.index.file}: its header is damaged ({written!r:.80} generator steps); export the collection again"
            ) from error


def read_folder(path: Path) -> CollectionFolder:
    """Read a collection's folder, and compare its files with one another.

    Raises:
        CollectionError: a file is missing, or the weights are not those that ``effects.json`` was written for, or its
            effects not those of the weights' header.
    """
    if path.is_file():
        raise CollectionError(f"{path}: name the collection's folder, which has {EFFECTS} and {MANIFEST} as well")
    index = read_index(path)
    listing = _json(inside(path, EFFECTS))
    digest = sha256_file(index.file)
    if listing.get("weights_sha256") != digest:
        raise CollectionError(
            f"{index.file}: its SHA-256 is {digest[:16]}…, and {EFFECTS} was written for "
            f"{str(listing.get('weights_sha256'))[:16]}…: one of the two was changed or damaged; copy the whole folder again"
        )
    if listing.get("effects") != effects_json(index.effects):
        raise CollectionError(
            f"{path / EFFECTS}: its effects are not those in the header of {index.file.name}; copy the whole folder again, "
            "and change effects by `cldistill remove` and `cldistill rename`"
        )
    return CollectionFolder(path, index, listing, own_manifest(path))


def own_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest in a collection's folder, in which only the last part of local paths is left.

    Raises:
        CollectionError: as `read_yaml`; or a path in it leads elsewhere.
    """
    found = read_yaml(inside(path, MANIFEST))
    if outside := [text for text in _paths(found) if leads_out(text)]:
        raise CollectionError(
            f"{path / MANIFEST}: names {outside[0]!r:.200}, outside of the collection, which no export does; it was changed: "
            "do not use it"
        )
    return found


def _paths(value: Any) -> Iterator[str]:
    """Yield all texts but prompts."""
    if isinstance(value, dict):
        yield from (text for key, inner in value.items() if key != "prompt" for text in _paths(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in _paths(inner))
    elif isinstance(value, str):
        yield value


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CollectionError(f"{path}: is missing; a collection is the whole folder that a run exported") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CollectionError(f"{path}: cannot be read ({error}); copy the whole folder again") from error
    if not isinstance(found, dict):
        raise CollectionError(f"{path}: holds no object; copy the whole folder again")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a resolved manifest as plain data, with the scalars of manifests (``1e-4`` is a number).

    Raises:
        CollectionError: it is missing, or no map with a list of effects.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise CollectionError(f"{path}: {told}; a collection is the whole folder that a run exported") from error
    found = plain(parse(text, str(path), path.parent).plain())
    effects = found.get("effects") if isinstance(found, dict) else None
    if (
        not isinstance(found, dict)
        or not isinstance(effects, list)
        or not all(
            isinstance(effect, dict) and isinstance(effect.get(key), str)
            for effect in effects
            for key in ("name", "prompt")
        )
    ):
        raise CollectionError(f"{path}: is no manifest of a collection; copy the whole folder again")
    return found


def sound_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a collection or of its run through its model, so that every key is there and of its type.

    Raises:
        CollectionError: each mistake in it, with its line.
    """
    path = inside(folder, MANIFEST)
    try:
        return read_stored(path.read_text(encoding="utf-8"), path)
    except ManifestError as error:
        raise CollectionError(
            f"{path}: is damaged, or of another version of cldistill; copy the whole folder again\n{error}"
        ) from error


@dataclass(frozen=True)
class RunBeside:
    """The run that made a collection, where the collection still lies in its folder."""

    folder: Path
    checkpoint: Checkpoint | None
    """Its last checkpoint, if it is that of the collection's weights."""


def run_beside(collection: CollectionFolder) -> RunBeside | None:
    """Return the run around a collection; None where the folder around it is none, or that of another collection."""
    folder = collection.path.resolve().parent
    if not (folder / MANIFEST).is_file():
        return None
    manifest, checkpoint = read_yaml(folder / MANIFEST), matching_checkpoint(collection, folder / "checkpoints")
    same_run = checkpoint is not None or manifest.get("name") == collection.manifest.get("name")
    return RunBeside(folder, checkpoint) if same_run else None


def matching_checkpoint(collection: CollectionFolder, root: Path) -> Checkpoint | None:
    """Return the checkpoint under ``root`` with the collection's weights, by manifest and step; None where there is none."""
    folder = root / f"step-{collection.generator_steps:06d}"
    try:
        found = read(folder)
    except (CheckpointError, OSError):
        return None
    return found if found.meta.get("manifest") == collection.manifest_digest else None
