"""Splits: several collections beside a ``groups.json``, written by ``cldistill group``; which of them has an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cldistill.errors import CollectionError, UnsafePathError, nearest
from cldistill.storage.untrusted import inside, is_name, parse_json

SPLIT = "groups.json"
"""``groups``, each with ``name``, ``collection`` and ``effects``."""
PATHS = {"manifest", "run", "collection"}
"""Entries of a group that are paths, relative to the file."""


def routed_folders(collection: Path) -> list[Path]:
    """Return the folders of a split's groups, or the collection itself."""
    if not (collection / SPLIT).is_file():
        return [collection]
    return [group["collection"] for group in read_split(collection / SPLIT) if group["effects"]]


def routed(collection: Path, effects: Sequence[str]) -> Path:
    """Return the collection that has the effects: that of a group where ``collection`` holds a split, else itself.

    Raises:
        CollectionError: no group holds an effect, or they lie in several: one LoRA is mounted at a time.
    """
    file = collection / SPLIT
    if not file.is_file():
        return collection
    group_of = {effect: group for group in read_split(file) for effect in group["effects"]}
    for name in effects:
        if name not in group_of:
            raise CollectionError(f"{file}: no group holds the effect {name!r}{nearest(name, group_of)}")
    found = {group_of[name]["name"]: group_of[name]["collection"] for name in effects}
    if len(found) > 1:
        raise CollectionError(
            f"{file}: the effects {', '.join(effects)} lie in {len(found)} collections ({', '.join(found)}); "
            "apply one, then the other on its picture"
        )
    return next(iter(found.values()), collection)


def read_split(file: Path) -> list[dict[str, Any]]:
    """Return the groups of a split: ``name``, ``effects``, and ``collection`` as the path that it is.

    Raises:
        CollectionError: the file was not written by `cldistill group`.
        UnsafePathError: a collection lies outside of the split's folder.
    """
    try:
        groups = parse_json(inside(file.parent, file.name).read_bytes())["groups"]
        judge_groups(groups, file.parent)
        for group in groups:
            group["collection"] = inside(file.parent, group["collection"])
    except UnsafePathError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise CollectionError(f"{file}: was not written by `cldistill group` ({error!r})") from error
    return list(groups)


def judge_groups(groups: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Judge the names and paths in the groups of a split that lies in ``folder``: a stranger may have written them.

    Raises:
        UnsafePathError: a path leads out of the folder.
        ValueError: a name is none.
    """
    for group in groups:
        if not all(map(is_name, [group["name"], *group["effects"]])):
            raise ValueError("a group or an effect has no name that can be one")
        for part in PATHS & group.keys():
            inside(folder, group[part])
