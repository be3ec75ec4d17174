"""Two ways to write less: ``effects:`` as a file of its own, and one ``teacher:`` for all effects that name none.

Both are written out in full before the manifest is validated, so that everything behind sees ordinary effects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cldistill.errors import ManifestError
from cldistill.manifest_yaml import Value

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
