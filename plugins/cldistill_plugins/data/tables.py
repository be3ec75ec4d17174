"""Pairs and instructions from a list of records, by the keys that trainers and data sets use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from cldistill.data.items import Listing
from cldistill.errors import DataError
from cldistill.records import Item
from cldistill_plugins.data.rows import Row, read_rows, row_pictures

SOURCE = (
    "source", "src", "before", "input", "original", "orig", "control", "conditioning", "condition", "cond", "reference",
    "ref", "edit", "kontext", "start",
)  # fmt: skip
TARGET = (
    "target", "tgt", "after", "output", "edited", "result", "ground_truth", "groundtruth", "gt", "label", "end",
)  # fmt: skip
"""Words for the two sides, without ``_image``, ``_path``, ``_file_name`` or a number at the end."""
PROMPT = ("prompt", "instruction", "caption", "text", "edit_prompt", "edit_instruction", "edit")
EITHER = ""
"""The word left of ``image``, ``image_path`` or ``file_name``: the side that nothing else in the record is."""
KINDS = re.compile(r"_?(file_?name|file_?path|path|file|images?|imgs?|pictures?|photos?)$")


def word(key: str) -> tuple[str, str]:
    """Return what a key says and its number: ``control_path_1`` -> ``control``, ``1``; ``image`` -> ```` and ````."""
    name = re.sub(r"[\s\-]+", "_", key.strip().lower())
    digits = re.search(r"_?(\d*)$", name)
    number = digits[1] if digits else ""
    name = name[: len(name) - len(digits[0])] if digits and number else name
    while KINDS.search(name):
        name = KINDS.sub("", name)
    return name, number


def sides(row: Mapping[str, Any]) -> tuple[object, object]:
    """Return the value(s) of a record's before and of its after; None for a side that it has not."""
    said: dict[str, dict[str, object]] = {}
    for key, value in row.items():
        plain = re.sub(r"[\s\-]+", "_", key.strip().lower())
        if plain not in PROMPT and value not in (None, ""):
            name, number = word(key)
            said.setdefault(name, {})[number.zfill(6)] = value
    before, after = (next((said[w] for w in words if w in said), None) for words in (SOURCE, TARGET))
    either = said.get(EITHER)
    if before is None and after is not None:
        before = either
    elif after is None and before is not None:
        after = either
    listed = [before[number] for number in sorted(before)] if before else [None]
    return listed[0] if len(listed) == 1 else listed, after[min(after)] if after else None


def row_prompt(row: Row) -> str | None:
    """Return what a record says; None where it says nothing.

    Raises:
        DataError: it is no text.
    """
    said = {re.sub(r"[\s\-]+", "_", key.strip().lower()): (key, value) for key, value in row.values.items()}
    for name in PROMPT:
        key, value = said.get(name, ("", None))
        if isinstance(value, str) and value.strip():
            return value
        if value not in (None, ""):
            raise DataError(f'{row.where}: "{key}" must be text, not {type(value).__name__}')
    return None


def table_pairs(file: Path, pool: str, prompt: str) -> Listing:
    """List the pairs of a JSONL, JSON or CSV; names of pictures are relative to its folder.

    Raises:
        DataError: it cannot be read at all, or holds no record.
    """

    def item(row: Row) -> tuple[Item, bool]:
        before, after = sides(row.values)
        if before is None or after is None:
            has = ", ".join(f'"{key}"' for key in row.values) or "nothing"
            raise DataError(
                f'{row.where}: needs "source" and "target" (or before and after, input and output, control_path and '
                f"image_path, original_image and edited_image); it has {has}"
            )
        if not isinstance(after, str):
            raise DataError(f'{row.where}: "target" is the name of a picture, not {type(after).__name__}')
        sources, target = row_pictures(file.parent, before, after, row.where)
        own = row_prompt(row)
        return Item(f"{pool}/{row.number:06d}", pool, sources, own or prompt, target), own is not None

    return _listing(file, item, f"the list {file.name}", "pairs")


def table_instructions(images: Path, file: Path, pool: str) -> Listing:
    """List pictures with instructions: ``image`` and ``instruction``, perhaps ``target``, relative to ``images``.

    Raises:
        DataError: the list cannot be read at all, or holds no record.
    """

    def item(row: Row) -> tuple[Item, bool]:
        values = row.values
        said, shown = values.get("instruction"), values.get("image")
        if shown in (None, "") or not isinstance(said, str):
            raise DataError(f'{row.where}: needs "image" and "instruction"')
        paths, target = row_pictures(images, shown, values.get("target"), row.where)
        return Item(f"{pool}/{row.number:06d}", pool, paths, said, target), True

    return _listing(file, item, f"the list {file.name}", "instructions")


def _listing(file: Path, item: Callable[[Row], tuple[Item, bool]], layout: str, what: str) -> Listing:
    items, captions, problems = [], 0, []
    for row in read_rows(file):
        try:
            if isinstance(row, DataError):
                raise row
            found, own = item(row)
        except DataError as error:
            problems.append(str(error))
            continue
        items.append(found)
        captions += own
    if not items and not problems:
        raise DataError(f"{file}: holds no {what}: it is empty")
    return Listing(layout, tuple(items), captions, tuple(problems))


def table_captions(file: Path) -> dict[str, str]:
    """Return picture (relative to the list's folder, NFC) -> its text; of a list that names single pictures only."""
    found = {}
    for row in read_rows(file):
        if isinstance(row, DataError):
            continue
        named = next((v for key, v in row.values.items() if word(key)[0] == EITHER and isinstance(v, str)), None)
        said = row_prompt(row)
        if named and said:
            found[normalize("NFC", named.replace("\\", "/"))] = said
    return found


def is_pair_table(file: Path) -> bool:
    """Return whether the first record of a list has a before and an after."""
    try:
        first = next(iter(read_rows(file)), None)
    except DataError:
        return False
    return isinstance(first, Row) and None not in sides(first.values)
