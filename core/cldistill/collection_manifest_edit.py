"""An effect renamed or taken out of a resolved manifest, whose comments stay (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import yaml

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


def _members(settings: Mapping[str, Any], name: str, new: str | None) -> dict[str, Any]:
    """Edit the values of settings; their own keys are words of the part, whatever an effect is called."""
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
