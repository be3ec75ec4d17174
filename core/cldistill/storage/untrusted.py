"""The judge of somebody else's file: the paths, names and JSON in it, refused where they are read (torch-free).

A collection travels, and whoever made it must not reach beyond its folder: every path that a file names goes through `inside`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
from functools import lru_cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeGuard

from cldistill.errors import CONTROL, UnsafePathError

GROUP, RECIPES = "cldistill", "cldistill_registry"
"""Group of the entry points by which packages register as plugins; and the package of the recipes."""
_NAME = re.compile(r"(?![.\s])[^/\\+\n\t]{1,300}(?<!\s)")
_SNAPSHOT = re.compile(r"(/models--[^/]+)/snapshots/[0-9a-f]{40}(?=/|$)")


def inside(folder: Path, written: object) -> Path:
    """Return the path that a file in ``folder`` names; nothing need be there.

    UnsafePathError where it is no text, leads out of ``folder`` (by itself or by a link), or to a pipe, socket or device.
    """
    if not is_text(written) or not written or set(written) & set("\n\t") or leads_out(written):
        raise UnsafePathError(f"{folder}: a file in it names {written!r:.200}, which is no path inside this folder")
    return plain(folder / written, folder)


def leads_out(text: object) -> bool:
    """Return whether a text that may be a path would lead out of any folder: absolute, from a home, or through ``..``."""
    parts = re.split(r"[/\\]", text) if isinstance(text, str) else [""]
    return (len(parts) > 1 and (parts[0] in ("", "~") or parts[0][1:] == ":")) or ".." in parts


def plain(path: Path, folder: Path) -> Path:
    """Return ``path`` if it leads to a plain file or folder within ``folder``, or to nothing; raises as `inside` does.

    In the cache of the hub the files of a snapshot are links into the repository's own folder, which counts as ``folder``.
    """
    home, real = os.path.realpath(folder), os.path.realpath(path)
    if (found := _SNAPSHOT.search(Path(home).as_posix())) is not None:
        home = home[: found.end(1)]
    if real != home and not real.startswith(home.rstrip(os.sep) + os.sep):
        raise UnsafePathError(
            f"{path}: is a link that leads out of {folder}; copy the file there itself, if you trust it"
        )
    try:
        mode = Path(real).stat().st_mode
    except (OSError, ValueError):
        return path  # nothing there: for whoever wants to read it to say
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnsafePathError(f"{path}: is a pipe, socket or device, and no file; take it out of the folder")
    return path


def is_text(text: object) -> TypeGuard[str]:
    """Return whether it is a text without control characters, lines and tabs aside."""
    return isinstance(text, str) and not CONTROL.search(text.replace("\t", " "))


def is_name(text: object) -> bool:
    """Return whether a text can be the name of an effect: on one line, of any script, without the ``+`` that joins effects."""
    return is_text(text) and _NAME.fullmatch(text) is not None


def effect_name(name: str) -> str:
    """Return ``name`` if an effect can be called so; raises ValueError."""
    if not is_name(name):
        raise ValueError(
            f"{name!r:.80} is no name: one line of up to 300 letters, no '/', '\\' or '+', no '.' or ' ' first"
        )
    return name


def file_stem(name: str) -> str:
    """Return a name as any disk can hold it: a short one of plain letters as it is, else what it can keep and a digest."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{,99}", name):
        return name
    kept = re.sub(r"[^\w.-]+", "-", name)[:40].strip("-._")
    return f"{kept}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON as its standard has it: UTF-8, no NaN; raises ValueError also where it is nested too deeply."""
    try:
        words = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(words, parse_constant=int)  # which raises ValueError for NaN and Infinity
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def package_path(reference: str) -> Path:
    """Return where ``package:NAME/PATH`` lies, by the package's spec: nothing of it is imported.

    UnsafePathError where it is not installed, or did not register plugins, and for a path outside of it.
    """
    package, _, inner = reference.removeprefix("package:").partition("/")
    top, *rest = package.split(".")
    spec = find_spec(top) if top in _registered(tuple(sys.path)) else None
    if spec is None or not spec.submodule_search_locations:
        raise UnsafePathError(f"No module named {package!r} that registered plugins of cldistill; install it")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return inside(folder, "/".join([*rest, inner]) or ".")


@lru_cache(maxsize=4)
def _registered(path: tuple[str, ...]) -> frozenset[str]:
    """Return the top packages of all installed plugins; ``path`` is where Python looks for them."""
    return frozenset(point.module.partition(".")[0] for point in entry_points(group=GROUP)) | {RECIPES}
