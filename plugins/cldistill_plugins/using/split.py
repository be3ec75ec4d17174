"""``groups.json`` beside several collections: which of them has an effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cldistill.errors import CollectionError, UnsafePathError, nearest
from cldistill.storage.untrusted import inside, is_name, parse_json

SPLIT = "groups.json"
"""Beside several collections, by ``cldistill group``: ``groups``, each with ``name``, ``collection`` and ``effects``."""


def routed(collection: Path, effects: Sequence[str]) -> Path:
    """Return the collection that has the effects: that of a group where ``collection`` holds a split, else itself.

    Raises:
        CollectionError: no group holds an effect, or they lie in several: one LoRA is mounted at a time.
    """
    file = collection / SPLIT
    if not file.is_file():
        return collection
    try:
        group_of = {effect: group for group in read_groups(file) for effect in group["effects"]}
        found = {group_of[name]["name"]: group_of[name]["collection"] for name in effects if name in group_of}
    except UnsafePathError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise CollectionError(f"{file}: was not written by `cldistill group` ({error!r})") from error
    for name in effects:
        if name not in group_of:
            raise CollectionError(f"{file}: no group holds the effect {name!r}{nearest(name, group_of)}")
    if len(found) > 1:
        raise CollectionError(
            f"{file}: the effects {', '.join(effects)} lie in {len(found)} collections ({', '.join(found)}); "
            "apply one, then the other on its picture"
        )
    return next(iter(found.values()), collection)


def read_groups(file: Path) -> list[dict[str, Any]]:
    """Return the groups of a split, each ``collection`` as the path that it is; raises what its parsing may, for `routed`."""
    groups = parse_json(inside(file.parent, file.name).read_bytes())["groups"]
    for group in groups:
        group["collection"] = inside(file.parent, group["collection"])
        if not all(map(is_name, [group["name"], *group["effects"]])):
            raise ValueError("a group or an effect has no name that can be one")
    return list(groups)
