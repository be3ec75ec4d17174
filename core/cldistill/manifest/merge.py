"""Changing a manifest's tree before it is validated: one file laid over another, and ``--set``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cldistill.errors import ManifestError, nearest
from cldistill.manifest.yaml import Value


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
        if value.data is None and key in members and isinstance(members[key].data, dict):
            del members[key]
        else:
            members[key] = merge(members[key], value) if key in members else value
    return replace(over, data=members)


def set_value(tree: Value, loc: Sequence[str], value: Value, shown: str) -> Value:
    """Return ``tree`` with ``value`` at a key path; a list entry is named by its index, its ``name`` or its ``use``."""
    if not loc:
        return value
    head, rest = loc[0], loc[1:]
    if isinstance(tree.data, dict) or tree.data is None:
        members = dict(tree.data or {})
        inner = members.get(head, Value(None, value.at, value.at))
        members[head] = replace(set_value(inner, rest, value, shown), key_at=value.at)
        return replace(tree, data=members)
    if isinstance(tree.data, list):
        index = _index(tree.data, head, shown)
        items = list(tree.data)
        items[index] = set_value(items[index], rest, value, shown)
        return replace(tree, data=items)
    raise ManifestError(f"--set {shown}: {head!r} lies inside the plain value {tree.data!r} of {tree.at}")


def _index(items: Sequence[Value], head: str, shown: str) -> int:
    if head.isdecimal():
        if int(head) < len(items):
            return int(head)
        raise ManifestError(f"--set {shown}: there is no entry {head}: the list has {len(items)} (0 is the first)")
    names = [_entry_names(item) for item in items]
    found = [index for index, entry in enumerate(names) if head in entry]
    if len(found) == 1:
        return found[0]
    if found:
        raise ManifestError(f"--set {shown}: {head!r} names several entries: use one of the indices {found}")
    raise ManifestError(f"--set {shown}: no entry is called {head!r}{nearest(head, {n for e in names for n in e})}")


def _entry_names(item: Value) -> tuple[str, ...]:
    if not isinstance(item.data, dict):
        return ()
    values = (item.data.get(key) for key in ("name", "use"))
    return tuple(value.data for value in values if value is not None and isinstance(value.data, str))


ReadList = Callable[[Value], Value]
"""Reads the file that a text value names and returns its tree."""


def effects_from_file(tree: Value, read: ReadList) -> Value:
    """Put the list of the file that ``effects:`` names in its place; its relative paths start from its own folder.

    Raises:
        ManifestError: the file does not hold a list.
    """
    assert isinstance(tree.data, dict)
    written = tree.data.get("effects")
    if written is None or not isinstance(written.data, str):
        return tree
    found = read(written)
    if not isinstance(found.data, list):
        raise ManifestError(
            f"{found.at}: a file of effects is a list of `- name: …`, as under `effects:` in a manifest"
        )
    return replace(tree, data={**tree.data, "effects": replace(found, key_at=written.key_at)})


def with_default_teacher(tree: Value) -> Value:
    """Give every effect without a ``teacher`` the one at the top of the manifest, and take that one out."""
    if not isinstance(tree.data, dict) or "teacher" not in tree.data:
        return tree
    members = dict(tree.data)
    teacher, effects = members.pop("teacher"), members.get("effects")
    if effects is not None and isinstance(effects.data, list):
        members["effects"] = replace(effects, data=[_taught(effect, teacher) for effect in effects.data])
    return replace(tree, data=members)


def _taught(effect: Value, teacher: Value) -> Value:
    if not isinstance(effect.data, dict) or "teacher" in effect.data:
        return effect
    return replace(effect, data={**effect.data, "teacher": teacher})
