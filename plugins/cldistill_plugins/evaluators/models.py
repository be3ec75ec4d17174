"""Finding the weights that a metric's options name: in a folder, or the snapshot of a hub repository in the hub's own cache.

Nothing is downloaded unless an option allows it, and ``HF_HUB_OFFLINE`` forbids it all the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field

from cldistill.component import ModelRef, Settings
from cldistill.errors import NotMeasured

OTHER_FRAMEWORKS = ("*.h5", "*.msgpack", "*.onnx", "onnx/*", "*.tflite", "*.ot")
"""Files of a hub repository that nobody here reads."""
WEIGHTS = ("*.safetensors", "*.bin", "*.pth")


class ModelSettings(Settings):
    """Options of a metric that reads weights."""

    model: ModelRef
    revision: str | None = Field(None, description="commit, tag or branch of the hub repository; null: its main one")
    download: bool = Field(False, description="whether what is missing may be downloaded from the hub")


def need(package: str, install: str) -> None:
    """Raise `NotMeasured` unless ``package`` can be imported; ``install`` is what to give to pip."""
    if find_spec(package) is None:
        raise NotMeasured(f"needs the package {package}, which is not installed: pip install {install}")


def reason(look: Callable[[], object]) -> str | None:
    """Return why ``look`` cannot find what a metric needs, for `cldistill.component.Needs.lacks`; None where it can."""
    try:
        look()
    except NotMeasured as error:
        return error.reason
    return None


def see_model(package: str, settings: ModelSettings) -> None:
    """See that a metric's package is there, and its model too unless it may be downloaded.  Raises `NotMeasured`."""
    need(package, "cldistill[eval]")
    if not settings.download:
        find_model(settings.model, download=False, revision=settings.revision)


def find_model(model: str, *, download: bool, revision: str | None = None, weights: bool = True) -> Path:
    """Return the folder of a model: the one that is named, or the hub's snapshot; ``weights``: whether those are wanted.

    Raises:
        NotMeasured: there is none, with what would help.
    """
    named = Path(model)
    if named.is_dir():
        return named
    if named.is_absolute():
        raise NotMeasured(f"there is no folder {named}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                local_files_only=not download,
                ignore_patterns=[*OTHER_FRAMEWORKS, *(() if weights else WEIGHTS)],
            )
        )
    except LocalEntryNotFoundError:
        wanted = "download: true failed" if download else "give model: a folder, or allow download: true"
        raise NotMeasured(f"{model} is not in the hub's cache; {wanted}") from None
    except HFValidationError:
        raise NotMeasured(f"{model!r} is neither a folder nor the name of a hub repository") from None
    except (HfHubHTTPError, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NotMeasured(f"{model} could not be downloaded ({said})") from None


def fingerprint(folder: Path) -> str:
    """Hash names, sizes and versions of a folder's files: what cached values go by.

    A file of the hub's cache is a link to a blob that is named by its content; any other has the time of its last change.
    """
    parts: list[tuple[str, int, str | int]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        made = path.readlink().name if path.is_symlink() else stat.st_mtime_ns
        parts.append((str(path.relative_to(folder)), stat.st_size, made))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def unusable(folder: Path, error: Exception) -> NotMeasured:
    """Return the reason for weights that are there but cannot be loaded."""
    said = " ".join(str(error).split())
    return NotMeasured(f"the model in {folder} cannot be loaded ({type(error).__name__}: {said[:300]})")
