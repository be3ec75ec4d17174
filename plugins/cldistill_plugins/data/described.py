"""An effect's folder beside its pairs: what it says of itself, its trained LoRA, and the name that its own name gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cldistill.errors import DataError
from cldistill.storage.untrusted import parse_json

DESCRIPTION = "effect.json"
"""Beside the pairs: an object with ``name`` and ``prompt``."""
TEACHER = "teacher.safetensors"
"""Beside the pairs: a LoRA that was trained on them already."""


def described(folder: Path) -> Mapping[str, str]:
    """Return ``name`` and ``prompt`` as far as `DESCRIPTION` tells them; nothing where there is none.

    Raises:
        DataError: it is no JSON object.
    """
    file = folder / DESCRIPTION
    if not file.is_file():
        return {}
    try:
        found = parse_json(file.read_bytes())
        return {key: found[key] for key in ("name", "prompt") if isinstance(found.get(key), str)}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: is no JSON object ({error})") from error


def name_of(path: Path) -> str:
    """Turn a file's or folder's name into an effect's: letters of any script, digits, ``.``, ``_`` and ``-``."""
    stem = path.stem if path.is_file() else path.name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-._") or "effect"
