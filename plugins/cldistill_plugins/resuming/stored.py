"""A manifest as an earlier run wrote it down, read back through its model (torch-free).

What reads it may then rely on every key and its type; whoever's file does not fit is told where, and no other error is
taken for damage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cldistill.errors import ManifestError
from cldistill.manifest.messages import describe_errors
from cldistill.manifest.models import Evaluate, Manifest, Slot
from cldistill.manifest.yaml import parse


class StoredSlot(Slot):
    """A slot of then: what it started from may be gone, and torchao need not be here."""

    init: str | None = None
    moments: Literal["8bit"] | None = None


class StoredEvaluate(Evaluate):
    """An evaluation of then: none of its systems is looked for, here or on the hub."""

    systems: tuple[dict[str, Any], ...] = ()  # type: ignore[assignment]


class StoredManifest(Manifest):
    """A resolved manifest, whose paths stay as they are written."""

    slots: dict[str, StoredSlot]  # type: ignore[assignment]
    evaluate: StoredEvaluate | None = None


def read_stored(text: str, file: Path) -> dict[str, Any]:
    """Return the resolved manifest ``text`` as plain data with every default filled in; ``file`` is where it stands.

    Raises:
        ManifestError: it is damaged, or of another version; one line for each mistake.
    """
    tree = parse(text, str(file), file.parent)
    try:
        found = StoredManifest.model_validate(plain(tree.plain()))
    except ValidationError as error:
        raise ManifestError(describe_errors(error, StoredManifest, tree)) from error
    return found.model_dump(mode="json", by_alias=True)


def plain(value: Any) -> Any:
    """Return ordinary strings in place of those that remember where they were written."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value
