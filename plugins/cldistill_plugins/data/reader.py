"""The reader of files that the core finds under its entry points ``cldistill.data`` (`cldistill.data.items.Reader`)."""

from __future__ import annotations

from pathlib import Path

from cldistill.data.items import Listing
from cldistill.errors import DataError
from cldistill_plugins.data.folders import ACCEPTED, folder_pairs
from cldistill_plugins.data.opened import unreadable, without_damaged
from cldistill_plugins.data.pictures import open_picture
from cldistill_plugins.data.rows import TABLES
from cldistill_plugins.data.tables import table_instructions, table_pairs

__all__ = ["list_instructions", "list_pairs", "open_picture", "unreadable"]


def list_pairs(pairs: Path, pool: str, prompt: str, *, opened: bool) -> Listing:
    """List the pairs at a path: a folder in any layout of `cldistill_plugins.data.folders`, or a JSONL, JSON or CSV.

    Raises:
        DataError: there are none; with what lies there, and what would be accepted.
    """
    if pairs.is_dir():
        found = folder_pairs(pairs, pool, prompt)
    elif pairs.suffix.lower() in TABLES:
        found = table_pairs(pairs, pool, prompt)
    elif not pairs.exists():
        raise DataError(f"{pairs}: no such folder or file")
    else:
        raise DataError(f"{pairs}: is no list of pairs ({', '.join(TABLES)}) and no folder; accepted are {ACCEPTED}")
    return without_damaged(found) if opened else found


def list_instructions(images: Path, file: Path, pool: str, *, opened: bool) -> Listing:
    """List pictures of a folder with their instructions.

    Raises:
        DataError: the list cannot be read at all.
    """
    found = table_instructions(images, file, pool)
    return without_damaged(found, shapes=False) if opened else found
