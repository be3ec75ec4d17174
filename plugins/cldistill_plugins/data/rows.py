"""Lists of pictures with words: the records of a JSONL, JSON, CSV or TSV, one after another."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import normalize

from cldistill.errors import DataError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


@dataclass(frozen=True)
class Row:
    """One record of a list."""

    where: str
    """File and line, for messages."""
    number: int
    """Its line (of a JSON: its place), from 1."""
    values: dict[str, Any]


def read_rows(file: Path) -> Iterator[Row | DataError]:
    """Yield every record of a list, or what is wrong with it.

    Raises:
        DataError: the file is missing, not UTF-8, or as a whole no list of records.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: is not UTF-8 ({error}): save it as UTF-8") from error
    if file.suffix.lower() in (".csv", ".tsv"):
        yield from _csv_rows(file, text)
    elif file.suffix.lower() == ".json":
        yield from _json_rows(file, text)
    else:
        # Only a newline ends a line: `splitlines` would also break a prompt at U+2028, which JSON allows in a string.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield _jsonl_row(file, number, line)


def _jsonl_row(file: Path, number: int, line: str) -> Row | DataError:
    try:
        return _record(f"{file}:{number}", number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return DataError(f"{file}:{number}: is not JSON ({error})")


def _json_rows(file: Path, text: str) -> Iterator[Row | DataError]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not JSON ({error})") from error
    if isinstance(found, dict):  # {"data": [...]}, or a record for each name
        lists = [value for value in found.values() if isinstance(value, list)]
        found = lists[0] if len(lists) == 1 else list(found.values())
    if not isinstance(found, list):
        raise DataError(f"{file}: must be a list of JSON objects, not {type(found).__name__}")
    for number, record in enumerate(found, start=1):
        yield _record(f"{file}: entry {number}", number, record)


def _record(where: str, number: int, record: object) -> Row | DataError:
    if not isinstance(record, dict):
        return DataError(f"{where}: must be a JSON object, not {type(record).__name__}")
    return Row(where, number, record)


def _csv_rows(file: Path, text: str) -> Iterator[Row | DataError]:
    head = text.partition("\n")[0]
    separator = max((",", ";", "\t"), key=head.count)
    lines = csv.DictReader(StringIO(text, newline=""), delimiter=separator)
    try:
        for record in lines:
            values = {key: value for key, value in record.items() if key is not None and isinstance(value, str)}
            yield Row(f"{file}:{lines.line_num}", lines.line_num, {k: v for k, v in values.items() if v.strip()})
    except csv.Error as error:
        raise DataError(f"{file}:{lines.line_num}: is not CSV ({error})") from error


def row_pictures(folder: Path, names: object, target: object, where: str) -> tuple[tuple[Path, ...], Path | None]:
    """Return the paths of a record's picture(s), a name or a list of them, and of its target, which must all exist.

    Raises:
        DataError: a wrong type, an empty list, or a file that is not there.
    """
    listed = names if isinstance(names, list) else [names]
    wanted = [*listed, *([] if target in (None, "") else [target])]
    for value in wanted:
        if not isinstance(value, str):
            raise DataError(f"{where}: a picture is the name of a file, or a list of such, not {json.dumps(value)}")
    if not listed:
        raise DataError(f"{where}: its list of pictures is empty; name at least one, or remove the line")
    paths = [find_picture(folder, name, where) for name in wanted]
    return tuple(paths[: len(listed)]), paths[len(listed)] if len(paths) > len(listed) else None


def find_picture(folder: Path, name: str, where: str) -> Path:
    """Return the path of a named picture, in either Unicode form and with the separators of Windows.

    Raises:
        DataError: there is none.
    """
    spelled = (name, name.replace("\\", "/"), normalize("NFC", name), normalize("NFD", name))
    try:
        found = next((path for path in (folder / text for text in spelled) if path.is_file()), None)
    except (OSError, ValueError):  # no name that a disk could have
        found = None
    if found is None:
        raise DataError(f"{where}: {folder / name}: no such picture")
    return found
