"""From a manifest's file, or the name of a recipe, to a `Manifest`: ``extends:``, ``--set``, and the place of every value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from cldistill.component import find_path
from cldistill.errors import ManifestError, UnsafePathError, nearest
from cldistill.manifest.messages import describe_errors
from cldistill.manifest.models import Manifest
from cldistill.manifest.yaml import DEEPEST, LARGEST, Place, Value, dotted, locate, parse
from cldistill.progress import program
from cldistill.storage.untrusted import RECIPES


@dataclass(frozen=True)
class ManifestFile:
    """A manifest together with the places of everything in it."""

    manifest: Manifest
    tree: Value
    source: str
    """The file or recipe that was asked for, as the user wrote it."""
    root: Path
    """Folder of that file; for a recipe the current folder."""

    def place(self, *loc: str | int) -> Place:
        """Return where a value stands, or the nearest map around it if it was never written."""
        return locate(self.tree, loc)[0].at

    def where(self, *loc: str | int) -> str:
        """Return ``file:line: key.path``, the beginning of every error."""
        return f"{self.place(*loc)}: {dotted(loc)}"


def recipes() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    names = (entry.name for entry in files(RECIPES).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_manifest(reference: str | Path, overrides: Sequence[str] = ()) -> ManifestFile:
    """Read a manifest (a path, or the name of a shipped recipe), lay it over what it ``extends``, apply ``--set``.

    ManifestError has file, line, key path, the value and the nearest valid name, one line for each mistake.
    """
    tree, root = _read(str(reference), None, Path.cwd(), ())
    return _validated(tree, str(reference), root, overrides)


def parse_manifest(text: str, shown: str, root: Path, overrides: Sequence[str] = ()) -> ManifestFile:
    """Read a manifest that is in no file yet; ``shown`` names it in messages, ``root`` begins its relative paths.

    Raises `ManifestError` as `load_manifest` does.
    """
    return _validated(parse(text, shown, root), shown, root, overrides)


# --- files


def _read(reference: str, asked: Place | None, root: Path, chain: tuple[str, ...]) -> tuple[Value, Path]:
    """Return the merged tree of a file and the folder that its relative paths start from."""
    text, shown, folder, identity = _open(reference, asked, root)
    if len(chain) > DEEPEST:
        raise ManifestError(f"{asked}: extends: more than {DEEPEST} manifests extend one another")
    if identity in chain:
        raise ManifestError(f"{asked}: extends: a manifest extends itself: {' -> '.join((*chain, identity))}")
    tree = parse(text, shown, folder)
    if not isinstance(tree.data, dict):
        raise ManifestError(f"{tree.at}: a manifest is a map of keys to values, not {type(tree.data).__name__}")
    members = dict(tree.data)
    extends = members.pop("extends", None)
    tree = Value(members, tree.at)
    if extends is None:
        return tree, folder
    if not isinstance(extends.data, str):
        raise ManifestError(f"{extends.at}: extends: give one path or recipe name ({extends.plain()!r})")
    base, _ = _read(extends.data, extends.at, folder, (*chain, identity))
    return merge(base, tree), folder


def _open(reference: str, asked: Place | None, root: Path) -> tuple[str, str, Path, str]:
    """Return text, shown name, folder and identity of a manifest file or shipped recipe."""
    where = f"{asked}: extends: " if asked is not None else ""
    path = Path(os.path.expanduser(reference))  # noqa: PTH111  (leaves the home of nobody as it is)
    full = path if path.is_absolute() else root / path
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    if full.is_file() or (is_path and not full.is_dir()):
        # Shown as the user would write it from where he stands; the root of an extended file may be another.
        shown = str(path) if asked is None else program.shown(full.resolve())
        return _text(full, f"{where}{reference}"), shown, full.resolve().parent, str(full.resolve())
    if reference not in recipes():
        folder = "; it is a folder: `cldistill init` writes a manifest for what lies in one"
        hint = folder if full.is_dir() else nearest(reference, recipes())
        raise ManifestError(f"{where}{reference}: neither a manifest file nor a shipped recipe{hint}")
    # A recipe has no folder of its own to keep pictures in: its relative paths belong to whoever uses it.
    text = files(RECIPES).joinpath(f"{reference}.yaml").read_text(encoding="utf-8")
    return text, f"{reference} (recipe)", root, f"recipe {reference}"


def _text(file: Path, where: str) -> str:
    try:
        if file.stat().st_size > LARGEST or not (file.is_file() or file.is_dir()):  # a device would be read for ever
            raise ManifestError(f"{where}: cannot be read: it is too large for a manifest, or no plain file")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{where}: cannot be read: it is not UTF-8 text") from error
    except OSError as error:
        raise ManifestError(f"{where}: cannot be read: {error.strerror}") from error


# --- the tree, changed before it is validated


def merge(base: Value, over: Value) -> Value:
    """Lay ``over`` on ``base``: maps are merged deeply, everything else (lists too) is replaced.

    ``null`` over a map takes it out: ``slots: {critic: null}`` is a run without the inherited critic.
    A part that names another ``use`` replaces the inherited part: the options of one component mean nothing to another.
    """
    if not (isinstance(base.data, dict) and isinstance(over.data, dict)):
        return over
    before, after = base.data.get("use"), over.data.get("use")
    if before is not None and after is not None and before.data != after.data:
        return over
    members = dict(base.data)
    for key, value in over.data.items():
        _put(members, key, merge(members[key], value) if key in members else value)
    return replace(over, data=members)


def _put(members: dict[str, Value], key: str, value: Value) -> None:
    """Put a value, of ``extends`` as of ``--set``, in its place; ``null`` over a map takes the map out."""
    if value.data is None and key in members and isinstance(members[key].data, dict):
        del members[key]
    else:
        members[key] = value


def _validated(tree: Value, source: str, root: Path, overrides: Sequence[str]) -> ManifestFile:
    # A file of effects is read once it is known which: an extending manifest or `--set effects=` may name another one.
    choosing = [override for override in overrides if override.partition("=")[0] == "effects"]
    tree = _effects_from_file(reduce(_override, choosing, tree))
    tree = reduce(_override, (override for override in overrides if override not in choosing), tree)
    tree = _with_default_teacher(tree)
    try:
        manifest = Manifest.model_validate(tree.plain())
    except ValidationError as error:
        raise ManifestError(describe_errors(error, Manifest, tree)) from error
    return ManifestFile(manifest, tree, source, root)


def _override(tree: Value, override: str) -> Value:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise ManifestError(f"--set {override}: write key.path=value, for instance train.seed=7")
    value = parse(text, "--set", Path.cwd(), lined=False)  # its lines mean nothing
    return _set_value(tree, path.split("."), value if text.strip() else replace(value, data=None), override)


def _set_value(tree: Value, loc: Sequence[str], value: Value, shown: str) -> Value:
    """Return ``tree`` with ``value`` at a key path; a list entry is named by its index, its ``name`` or its ``use``."""
    if not loc:
        return value
    head, rest = loc[0], loc[1:]
    if isinstance(tree.data, dict) or tree.data is None:
        members = dict(tree.data or {})
        inner = members.get(head, Value(None, value.at, value.at))
        _put(members, head, replace(_set_value(inner, rest, value, shown), key_at=value.at))
        return replace(tree, data=members)
    if isinstance(tree.data, list):
        index = _index(tree.data, head, shown)
        items = list(tree.data)
        items[index] = _set_value(items[index], rest, value, shown)
        return replace(tree, data=items)
    raise ManifestError(f"--set {shown}: {head!r} lies inside the plain value {tree.data!r} of {tree.at}")


def _index(items: Sequence[Value], head: str, shown: str) -> int:
    if head.isdecimal():
        if int(head) < len(items):
            return int(head)
        raise ManifestError(f"--set {shown}: there is no entry {head}: the list has {len(items)} (0 is the first)")
    entries = [item.data if isinstance(item.data, dict) else {} for item in items]
    names = [{str(entry[key].data) for key in ("name", "use") if key in entry} for entry in entries]
    found = [index for index, entry in enumerate(names) if head in entry]
    if len(found) == 1:
        return found[0]
    if found:
        raise ManifestError(f"--set {shown}: {head!r} names several entries: use one of the indices {found}")
    raise ManifestError(f"--set {shown}: no entry is called {head!r}{nearest(head, set().union(*names))}")


def _effects_from_file(tree: Value) -> Value:
    """Put the list of the file that ``effects:`` names in its place; its relative paths start from its own folder."""
    assert isinstance(tree.data, dict)
    written = tree.data.get("effects")
    if written is None or not isinstance(written.data, str):
        return tree
    where = f"{written.at}: effects"
    try:
        path = find_path(written.data, written.at.root)
    except UnsafePathError as error:
        raise ManifestError(f"{where}: {error}") from error
    found = parse(_text(path, f"{where}: {path}"), program.shown(path.resolve()), path.resolve().parent)
    if not isinstance(found.data, list):
        raise ManifestError(
            f"{found.at}: a file of effects is a list of `- name: …`, as under `effects:` in a manifest"
        )
    return replace(tree, data={**tree.data, "effects": replace(found, key_at=written.key_at)})


def _with_default_teacher(tree: Value) -> Value:
    """Give every effect without a ``teacher`` the one at the top of the manifest, and take that one out."""
    assert isinstance(tree.data, dict)
    members = dict(tree.data)
    teacher, effects = members.pop("teacher", None), members.get("effects")
    if teacher is not None and effects is not None and isinstance(effects.data, list):
        taught = [
            replace(effect, data={"teacher": teacher} | effect.data) if isinstance(effect.data, dict) else effect
            for effect in effects.data
        ]
        members["effects"] = replace(effects, data=taught)
    return replace(tree, data=members)
