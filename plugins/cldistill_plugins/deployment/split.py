"""``groups.json``: which collection holds which effect.  What a deployment routes by; torch-free.

```
{"format": 1, "name": "...", "key": "...",           the key hashes all that the split was made from
 "measured": "...", "figures": {"within": x, ...},
 "groups": [{"name": "bank-1", "manifest": "group-1.yaml", "run": "group-1",
             "collection": "group-1/collection", "effects": ["...", ...]}],
 "effects": {"manga": "group-1/collection/pytorch_lora_weights.safetensors", ...}}
```

Paths are relative to the file.  A group's files are there once it was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cldistill.collection.index import WEIGHTS
from cldistill.errors import CollectionError, UnsafePathError, nearest
from cldistill.storage.files import atomic_write_text
from cldistill.storage.untrusted import inside, parse_json
from cldistill_plugins.generation.api import judge_groups

FORMAT = 1
FILE = "groups.json"
INTERFERENCE = "interference.json"


@dataclass(frozen=True)
class Group:
    """One collection of several."""

    name: str
    effects: tuple[str, ...]
    manifest: str
    """Its manifest, relative to ``groups.json``."""
    run: str
    """Folder of its run."""

    @property
    def collection(self) -> str:
        """Folder of its collection."""
        return f"{self.run}/collection"

    @property
    def file(self) -> str:
        """Its LoRA file."""
        return f"{self.collection}/{WEIGHTS}"


@dataclass(frozen=True)
class Groups:
    """A bank in several collections."""

    name: str
    groups: tuple[Group, ...]
    key: str = ""
    """Hash of all that the split was made from: manifest, rule, options and number."""
    measured: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    folder: Path = Path()
    """The folder of the file, from which its paths start."""

    def group_of(self, effect: str) -> Group:
        """Return the group that holds an effect.

        Raises:
            CollectionError: none does, with the nearest name.
        """
        for group in self.groups:
            if effect in group.effects:
                return group
        hint = nearest(effect, [name for group in self.groups for name in group.effects])
        raise CollectionError(f"{self.folder / FILE}: no group holds the effect {effect!r}{hint}")

    def file_of(self, effect: str) -> Path:
        """Return the LoRA file that has an effect in it; raises UnsafePathError where a link leads it out of the folder."""
        return inside(self.folder, self.group_of(effect).file)


def write_groups(groups: Groups) -> Path:
    """Write ``groups.json`` into its folder."""
    path = groups.folder / FILE
    data = {
        "format": FORMAT,
        "name": groups.name,
        "key": groups.key,
        "measured": groups.measured,
        "figures": dict(groups.figures),
        "groups": [
            {"name": g.name, "manifest": g.manifest, "run": g.run, "collection": g.collection, "effects": list(g.effects)}
            for g in groups.groups
        ],
        "effects": {effect: group.file for group in groups.groups for effect in group.effects},
    }  # fmt: skip
    atomic_write_text(path, json.dumps(data, indent=1) + "\n")
    return path


def read_groups(path: Path) -> Groups:
    """Read ``groups.json`` from its folder, or by its own path.

    Raises:
        CollectionError: it is missing, or was not written by `cldistill group`.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise CollectionError(f"{file}: no such file; `cldistill group MANIFEST --output FOLDER` writes it")
    try:
        return _parse(parse_json(inside(file.parent, file.name).read_bytes()), file.parent)
    except UnsafePathError:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CollectionError(f"{file}: is no groups.json of format {FORMAT} ({error!r})") from error


def _parse(data: Mapping[str, Any], folder: Path) -> Groups:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}")
    rows: Sequence[Mapping[str, Any]] = data["groups"]
    judge_groups(rows, folder)
    groups = tuple(
        Group(str(g["name"]), tuple(map(str, g["effects"])), str(g["manifest"]), str(g["run"])) for g in rows
    )
    figures = {str(name): float(value) for name, value in data["figures"].items()}
    return Groups(str(data["name"]), groups, str(data["key"]), str(data["measured"]), figures, folder)
