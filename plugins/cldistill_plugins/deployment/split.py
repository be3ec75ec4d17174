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
from typing import Annotated, Literal

from pydantic import AfterValidator

from cldistill.collection.index import WEIGHTS
from cldistill.errors import CollectionError, nearest
from cldistill.storage.files import atomic_write_text
from cldistill.storage.untrusted import inside, is_text
from cldistill_plugins.generation.api import PathInside, StoredGroup, StoredSplit, read_split

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
        UnsafePathError: a path leads out of its folder.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise CollectionError(f"{file}: no such file; `cldistill group MANIFEST --output FOLDER` writes it")
    stored = read_split(file, _StoredGroups)
    groups = tuple(
        Group(g.name, tuple(g.effects), *(path.relative_to(file.parent).as_posix() for path in (g.manifest, g.run)))
        for g in stored.groups
    )
    return Groups(stored.name, groups, stored.key, stored.measured, stored.figures, file.parent)


def _line(text: str) -> str:
    if not is_text(text) or "\n" in text:
        raise ValueError(f"{text!r:.80} is no line of text")
    return text


_Line = Annotated[str, AfterValidator(_line)]


class _StoredGroup(StoredGroup):
    manifest: PathInside
    run: PathInside


class _StoredGroups(StoredSplit):
    format: Literal[1]
    name: _Line
    key: _Line
    measured: _Line
    figures: dict[_Line, float]
    groups: Sequence[_StoredGroup]
