"""New effects as a person names them: a folder of pairs, or a teacher's file with its prompt (torch-free)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.adapters.header import find_file, read_header
from cldistill.adapters.hub import local_path
from cldistill.collection.index import CollectionIndex
from cldistill.data.items import list_pairs
from cldistill.errors import CollectionError
from cldistill.records import Item
from cldistill_plugins.data.api import TEACHER, described, name_of


@dataclass(frozen=True)
class NewEffect:
    """An effect that a collection is to learn."""

    name: str
    prompt: str
    teacher: Path | None
    """Its adapter file; None: to be trained from the pairs."""
    pairs: Path | None
    """None: it has no pictures of its own."""
    after: bool = False
    """Whether each of its pictures has an after-picture, from which the student can learn."""


@dataclass(frozen=True)
class Given:
    """One new effect as the command line names it, read by `prepare_growth`."""

    path: Path
    name: str | None = None
    prompt: str | None = None
    pairs: Path | None = None


def spread(paths: Sequence[Path], names: Sequence[str], prompts: Sequence[str], pairs: Sequence[Path]) -> list[Given]:
    """Give each new effect its name, prompt and pairs, in order.

    Raises:
        CollectionError: an option was given, but not once for each.
    """
    for option, values in (("--name", names), ("--prompt", prompts), ("--pairs", pairs)):
        if values and len(values) != len(paths):
            raise CollectionError(
                f"{option} was given {len(values)} times for {len(paths)} new effects; give it once for each, in their order"
            )
    blank: list[Any] = [None] * len(paths)
    return [Given(*each) for each in zip(paths, names or blank, prompts or blank, pairs or blank, strict=True)]


def read_effect(given: Given, ask: Callable[[str], str] | None = None) -> NewEffect:
    """Find out what a new effect is, and open every picture of it; ``ask`` is told its name where nothing says its prompt.

    Raises:
        CollectionError, DataError: the path is neither pairs nor an adapter; a picture is missing or unreadable; nothing
            says the prompt.
    """
    path, on_hub = local_path(given.path).absolute(), not given.path.exists()
    if not path.exists():
        raise CollectionError(f"{given.path}: no such folder of pairs or teacher file")
    path = find_file(path) if on_hub else path  # what is named there is a teacher
    is_teacher = path.is_file() and path.suffix == ".safetensors"
    told = described(path if path.is_dir() else path.parent) if not is_teacher else {}
    name = given.name or told.get("name") or name_of(Path(given.path.name.partition("@")[0]) if on_hub else path)
    pairs = given.pairs.absolute() if given.pairs is not None else None if is_teacher else path
    prompt = given.prompt or told.get("prompt") or (_shared_prompt(pairs) if pairs is not None else None)
    if not prompt and ask is not None:
        prompt = ask(name).strip()
    if not prompt:
        raise CollectionError(f'{given.path}: nothing says which prompt its teacher hears; give --prompt "…"')
    teacher = path if is_teacher else path / TEACHER if (path / TEACHER).is_file() else None
    if teacher is not None:
        read_header(teacher).require_finite()
    items = read_all(pairs, name, prompt) if pairs is not None else ()
    return NewEffect(name, prompt, teacher, pairs, bool(items) and all(item.target is not None for item in items))


def read_all(pairs: Path, name: str, prompt: str) -> Sequence[Item]:
    """Open every picture of an effect and return its items: better now than after an hour of training.

    Raises:
        DataError: naming the first that is missing or cannot be read.
    """
    return list_pairs(pairs, name, prompt, opened=True).sound().items


def _shared_prompt(pairs: Path) -> str | None:
    """Return the text that all pairs have beside them, if it is one."""
    said = {item.prompt for item in list_pairs(pairs, "", "").items}
    return said.pop() or None if len(said) == 1 else None


def refuse_known(new: Sequence[NewEffect], index: CollectionIndex) -> None:
    """Refuse a name that the collection has, or that was given twice.

    Raises:
        CollectionError: with the way out.
    """
    taken = {effect.name: "the collection has" for effect in index.effects}
    for effect in new:
        if effect.name in taken:
            raise CollectionError(
                f"{effect.name!r}: {taken[effect.name]} an effect of that name; give another with --name, or take the old "
                "one out of the catalogue with `cldistill remove`"
            )
        taken[effect.name] = "you give another new"
