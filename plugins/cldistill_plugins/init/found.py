"""The effects that lie on a disk: adapter files, and pairs in any layout that the engine reads (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cldistill.adapters.header import read_header
from cldistill.data.items import Listing, list_pairs, list_pictures
from cldistill.errors import CldistillError, DataError
from cldistill.records import GENERAL
from cldistill_plugins.data.api import TEACHER, described, name_of

SPOKEN = ("modelspec.trigger_phrase", "trigger_phrase", "trigger_words", "instance_prompt", "prompt")
"""Entries of an adapter's header in which trainers leave the words that it answers to."""


@dataclass(frozen=True)
class FoundEffect:
    """An effect as it was found: a LoRA, pairs, or both, and perhaps the prompt that they go with."""

    name: str
    teacher: Path | None = None
    pairs: Path | None = None
    listed: str = ""
    """The layout of its pairs, in words."""
    befores: Path | None = None
    """The folder of its first before-picture."""
    prompt: str | None = None
    """None where nothing on the disk says it."""

    @property
    def told(self) -> str:
        """The find in words."""
        parts = [f"LoRA {self.teacher.name}"] if self.teacher is not None else []
        parts += [f"{self.listed} in {self.pairs}"] if self.pairs is not None else []
        return ", ".join(parts)


def find_effects(paths: Sequence[Path]) -> list[FoundEffect]:
    """Return the effects that lie at ``paths``: adapter files, pairs, and folders of such; one of one name is one effect.

    Raises:
        DataError: a path does not exist or holds neither, or two things of one name are both LoRAs or both pairs.
    """
    found: dict[str, FoundEffect] = {}
    for path in paths:
        here = list(_at(path.absolute()))
        if not here:
            raise DataError(
                f"{path}: holds neither a LoRA (.safetensors) nor pairs, and none of its folders does.{_refused(path)}"
            )
        for effect in here:
            found[effect.name] = _joined(found[effect.name], effect) if effect.name in found else effect
    return [found[name] for name in sorted(found)]


def _refused(path: Path) -> str:
    """Return what the reader of pairs says about a path; it tells what lies there, and what it would accept."""
    try:
        list_pairs(path, "", "")
    except DataError as error:
        return f" {error}"
    return " Its pictures have no after-pictures: give their folder by --pictures"


def _joined(one: FoundEffect, other: FoundEffect) -> FoundEffect:
    for kind in ("teacher", "pairs"):
        first, second = getattr(one, kind), getattr(other, kind)
        if first is not None and second is not None:
            raise DataError(f"{second}: {first} would be an effect of the same name, {one.name!r}; rename one of them")
    filled = other if one.pairs is None else one
    return replace(filled, teacher=one.teacher or other.teacher, prompt=one.prompt or other.prompt)


def _at(path: Path) -> Iterator[FoundEffect]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix == ".safetensors":
        yield _lora(path)
        return
    listing = _pairs(path)
    if listing is not None:
        yield _taught(path, listing)
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.name.startswith((".", "__")):
                continue
            if inner.suffix in (".safetensors", ".jsonl", ".csv") and inner.is_file():
                yield from _at(inner)
            elif inner.is_dir():
                yield from ([_taught(inner, within)] if (within := _pairs(inner)) else [])


def _pairs(path: Path) -> Listing | None:
    """Return the pairs at a path; None where it holds no before and after.

    Raises:
        DataError: there are some, and something is wrong with them.
    """
    try:
        found = list_pairs(path, path.stem, "")
    except DataError:
        if path.is_dir() and any((path / side).exists() for side in ("source", "target")):
            raise
        return None
    if not any(item.target is not None for item in found.items):  # a list of general instructions, say
        return None
    return found.sound()


def _taught(path: Path, listing: Listing) -> FoundEffect:
    own = {item.prompt for item in listing.items if item.prompt}
    told: Mapping[str, str] = {}
    with suppress(DataError, OSError):  # a damaged description says nothing
        told = described(path if path.is_dir() else path.parent)
    teacher = path / TEACHER if (path / TEACHER).is_file() else None
    name = told.get("name") or _name(path)
    prompt = told.get("prompt") or (own.pop() if len(own) == 1 else None)
    return FoundEffect(name, teacher, path, listing.told, listing.items[0].sources[0].parent, prompt)


def _lora(path: Path) -> FoundEffect:
    header = read_header(path)
    spoken = next((text for key in SPOKEN if (text := header.metadata.get(key, "").strip())), None)
    return FoundEffect(_name(path), teacher=path, prompt=spoken)


def _name(path: Path) -> str:
    """Return a path's name as an effect's, which cannot be that of the general pool."""
    name = name_of(path)
    return f"{name}-effect" if name == GENERAL else name


def pictures_in(folder: Path | None) -> int:
    """Return how many pictures a folder holds; 0 where there is none."""
    try:
        return len(list_pictures(folder)) if folder is not None else 0
    except CldistillError:
        return 0
