"""Collections and adapters on the Hugging Face hub: "a path, or ``OWNER/NAME[@REVISION]``" as a path of this machine.

The files lie in huggingface_hub's own cache, in a folder named by the commit; `pinned` says that commit wherever such a path is
written down, so that what is read again is what was read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, ValidationInfo

from cldistill.component import find_path
from cldistill.errors import CollectionError

REFERENCE = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(refs/pr/\d+|[^@/\s]+)(?:/([^\s]+))?)?")
"""``OWNER/NAME``, ``OWNER/NAME@REVISION`` or ``OWNER/NAME@REVISION/FILE``."""
SNAPSHOT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})(?:/(.+))?$")
FETCHED = ("*.safetensors", "*.json", "*.yaml", "*.md", "samples/*.png")
"""Patterns of the files that are fetched of a repository: neither pickles nor programs."""
LOCAL = (".safetensors", ".jsonl", ".yaml", ".json")
"""Endings of a file of this machine, not of a repository."""


def local_path(path: str | Path, root: Path | None = None) -> Path:
    """Return a path as it is, or the folder (or file) of a hub id, fetched if it is not in the cache.

    A path that exists is that path.  So is one in a folder that exists, unless it has an ``@``: then it is a slip of the pen,
    about which nobody outside is asked.  CollectionError where neither the hub nor the cache gives it.
    """
    found, reference = find_path(path, root), REFERENCE.fullmatch(str(path))
    if reference is None or found.exists() or str(path).startswith("package:"):
        return found
    repository, revision, inner = reference.groups()
    if revision is None and (found.suffix in LOCAL or found.parent.is_dir()):
        return found
    folder = _snapshot(repository, revision)
    if inner is not None and (".." in Path(inner).parts or not (folder / inner).exists()):
        raise CollectionError(f"{path}: the repository {pinned(folder)} has no {inner!r}")
    return folder / inner if inner else folder


def pinned(path: Any) -> Any:
    """Return ``OWNER/NAME@COMMIT`` (and the file, if it is one) for a path in the hub's cache, any other as text."""
    found = SNAPSHOT.search(path.as_posix()) if isinstance(path, Path) else None
    if found is None:
        return str(path) if isinstance(path, Path) else path
    owner, name, commit, inner = found.groups()
    return f"{owner}/{name}@{commit}" + (f"/{inner}" if inner else "")


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    written = repository if revision is None else f"{repository}@{revision}"
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[*FETCHED]))
    except errors.RevisionNotFoundError:
        raise CollectionError(f"{written}: the repository is on the hub, but has no revision {revision!r}") from None
    except errors.GatedRepoError:
        raise CollectionError(
            f"{written}: its owner asks for consent: give it on the hub's page, and log in (`hf auth login`)"
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise CollectionError(
            f"{written}: is no file or folder here, and the hub shows no such repository; check the spelling, and if it is "
            "private log in (`hf auth login`, or HF_TOKEN)"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:  # its words may hold an address
        raise CollectionError(
            f"{written}: is no file or folder here, is not in the cache of the hub, and cannot be fetched now "
            f"({type(error.__cause__ or error).__name__}); with a network, `hf download {repository}` puts it there"
        ) from None


def resolve_adapter(value: object, info: ValidationInfo) -> object:
    """Resolve what a manifest names: a path as `cldistill.component.resolve_path` does, or a hub id."""
    return local_path(value, (info.context or {}).get("root")) if isinstance(value, str | Path) else value


AdapterPath = Annotated[
    Path, BeforeValidator(resolve_adapter), PlainSerializer(pinned, return_type=str, when_used="json")
]
"""Settings type for an adapter or a collection: a path as `LocalPath`, or a hub id, which a resolved manifest pins."""
