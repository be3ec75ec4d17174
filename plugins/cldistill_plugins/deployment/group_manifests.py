"""One manifest a group: the original, extended, with the group's effects alone; torch-free.

What a manifest says *per effect* elsewhere (a router's weights by effect, the rows of the sample grids) must not name
effects of other groups, and ``extends:`` cannot take a key out of a map.  Where there is such a thing, or where ``--set``
changed the original, the groups extend ``bank.yaml``: the original with every default filled in and that taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.load import recipes
from cldistill.manifest.resolved import resolve
from cldistill.storage.files import atomic_write_text
from cldistill_plugins.deployment.split import Group

BANK = "bank.yaml"
PER_EFFECT = ("router", "prompts", "losses", "observers", "evaluate")
"""Keys in whose options maps by effect may stand."""


def write_manifests(checked: CheckedManifest, groups: Sequence[Group], folder: Path, *, changed: bool) -> None:
    """Write the manifest of every group into ``folder``; ``changed``: the original was changed by ``--set``."""
    resolved = resolve(checked)
    names = {effect.name for effect in checked.effects}
    cut = {key: resolved[key] for key in PER_EFFECT if only(resolved.get(key), names, ()) != resolved.get(key)}
    original = _reference(checked.file.source)
    if cut or changed:
        bank = {**resolved, **{key: only(value, names, ()) for key, value in cut.items()}}
        atomic_write_text(folder / BANK, f"# {original}, resolved; the groups extend it.\n{_yaml(bank)}")
        original = BANK
    for group in groups:
        manifest = {
            "extends": original,
            "name": group.name,
            "effects": [effect for effect in resolved["effects"] if effect["name"] in group.effects],
            **{key: only(value, names, group.effects) for key, value in cut.items()},
            **_samples(resolved.get("samples"), group.effects),
        }
        atomic_write_text(folder / group.manifest, _yaml(manifest))


def only(value: Any, names: Collection[str], kept: Collection[str]) -> Any:
    """Return a part with every map by effect (all of its keys are in ``names``) cut down to the effects in ``kept``."""
    if isinstance(value, dict):
        if value and all(key in names for key in value):
            return {key: inner for key, inner in value.items() if key in kept}
        return {key: only(inner, names, kept) for key, inner in value.items()}
    return [only(inner, names, kept) for inner in value] if isinstance(value, list) else value


def _samples(samples: dict[str, Any] | None, kept: Sequence[str]) -> dict[str, Any]:
    if samples is None or samples.get("effects") is None:
        return {}
    shown = [name for name in samples["effects"] if name in kept]
    return {"samples": {"effects": shown} if shown else None}


def _reference(source: str) -> str:
    """Return how another folder names a manifest: a recipe by its name, a file by its whole path."""
    path = Path(source).expanduser()
    return source if source in recipes() and not path.is_file() else str(path.resolve())


def _yaml(data: Any) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
