"""Reading manifests: files and shipped recipes, ``extends:``, ``--set``, and the place of every value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from pydantic import ValidationError, ValidationInfo

from cldistill.component import resolve_path
from cldistill.errors import ManifestError, nearest
from cldistill.manifest.merge import effects_from_file, merge, set_value, with_default_teacher
from cldistill.manifest.messages import describe_errors
from cldistill.manifest.models import Manifest
from cldistill.manifest.yaml import Place, Value, dotted, locate, parse

RECIPES = "cldistill_registry"
"""The package whose YAML files can be named without a path."""


@dataclass(frozen=True)
class ManifestFile:
    """A manifest together with the places of everything in it."""

    manifest: Manifest
    tree: Value
    source: str
    """The file or recipe that was asked for, as the user wrote it."""
    root: Path
    """Folder of that file; for a recipe the current folder."""

    def place(self, *loc: str | int, key: bool = False) -> Place:
        """Return where a value (or its key) stands, or the nearest map around it if it was never written."""
        value, found = locate(self.tree, loc)
        return value.key_at if key and found == loc and value.key_at is not None else value.at

    def where(self, *loc: str | int, key: bool = False) -> str:
        """Return ``file:line: key.path``, the beginning of every error."""
        return f"{self.place(*loc, key=key)}: {dotted(loc)}"


def recipes() -> tuple[str, ...]:
    """Return the names of the shipped recipes."""
    names = (entry.name for entry in files(RECIPES).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_manifest(reference: str | Path, overrides: Sequence[str] = ()) -> ManifestFile:
    """Read a manifest (a path, or the name of a shipped recipe), lay it over what it ``extends``, apply ``--set``.

    Raises:
        ManifestError: with file, line, key path, the value and the nearest valid name, one line for each mistake.
    """
    tree, root = _read(str(reference), None, Path.cwd(), ())
    return _validated(tree, str(reference), root, overrides)


def parse_manifest(text: str, shown: str, root: Path, overrides: Sequence[str] = ()) -> ManifestFile:
    """Read a manifest that is in no file yet; ``shown`` names it in messages, ``root`` begins its relative paths.

    Raises `ManifestError` as `load_manifest` does.
    """
    return _validated(parse(text, shown, root), shown, root, overrides)


def _validated(tree: Value, source: str, root: Path, overrides: Sequence[str]) -> ManifestFile:
    # A file of effects is read once it is known which: an extending manifest or `--set effects=` may name another one.
    for override in sorted(overrides, key=_is_within):
        if _is_within(override):
            tree = effects_from_file(tree, _effects_file)
        tree = _override(tree, override, Path.cwd())
    tree = with_default_teacher(effects_from_file(tree, _effects_file))
    try:
        manifest = Manifest.model_validate(tree.plain())
    except ValidationError as error:
        raise ManifestError(describe_errors(error, Manifest, tree)) from error
    return ManifestFile(manifest, tree, source, root)


def _is_within(override: str) -> bool:
    """Whether a ``--set`` changes something other than which file or list of effects it is."""
    return override.partition("=")[0] != "effects"


def _override(tree: Value, override: str, root: Path) -> Value:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise ManifestError(f"--set {override}: write key.path=value, for instance train.seed=7")
    parsed = parse(text, "--set", root)
    at = Place("--set", 0, 0, root)
    value = Value(None, at) if not text.strip() else _moved(parsed, at)
    return set_value(tree, path.split("."), value, override)


def _moved(value: Value, at: Place) -> Value:
    """Give every value of a ``--set`` the same place: its lines mean nothing."""
    if isinstance(value.data, dict):
        return Value({key: _moved(inner, at) for key, inner in value.data.items()}, at, at)
    if isinstance(value.data, list):
        return Value([_moved(inner, at) for inner in value.data], at, at)
    return Value(value.data, at, at)


def _read(reference: str, asked: Place | None, root: Path, chain: tuple[str, ...]) -> tuple[Value, Path]:
    """Return the merged tree of a file and the folder that its relative paths start from."""
    text, shown, folder, identity = _open(reference, asked, root)
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


def _effects_file(written: Value) -> Value:
    """Parse the file of effects that ``effects:`` names."""
    named = written.plain()
    try:
        path = resolve_path(named, cast(ValidationInfo, SimpleNamespace(context={"root": written.at.root})))
    except ModuleNotFoundError as error:
        raise ManifestError(f"{written.at}: effects: {error}") from error
    assert isinstance(path, Path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ManifestError(f"{written.at}: effects: {path}: cannot be read: {reason}") from error
    return parse(text, str(_relative(path)), path.resolve().parent)


def _open(reference: str, asked: Place | None, root: Path) -> tuple[str, str, Path, str]:
    """Return text, shown name, folder and identity of a manifest file or shipped recipe."""
    where = f"{asked}: extends: " if asked is not None else ""
    path = Path(reference).expanduser()
    full = path if path.is_absolute() else root / path
    is_path = path.suffix in (".yaml", ".yml") or len(path.parts) > 1
    if is_path or full.is_file():
        # Shown as the user would write it from where he stands; the root of an extended file may be another.
        shown = str(path if asked is None else _relative(full))
        try:
            return full.read_text(encoding="utf-8"), shown, full.resolve().parent, str(full.resolve())
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ManifestError(f"{where}{reference}: cannot be read: {reason}") from error
    if reference not in recipes():
        hint = nearest(reference, recipes())
        raise ManifestError(f"{where}{reference}: neither a manifest file nor a shipped recipe{hint}")
    # A recipe has no folder of its own to keep pictures in: its relative paths belong to whoever uses it.
    text = files(RECIPES).joinpath(f"{reference}.yaml").read_text(encoding="utf-8")
    return text, f"{reference} (recipe)", root, f"recipe {reference}"


def _relative(path: Path) -> Path:
    resolved, here = path.resolve(), Path.cwd().resolve()
    return resolved.relative_to(here) if resolved.is_relative_to(here) else resolved
