"""The record of a run's making: its resolved manifest as text, library versions, hashes of its inputs; no torch in here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from cldistill.adapters.header import find_file
from cldistill.errors import CldistillError
from cldistill.manifest.checked import CheckedManifest
from cldistill.storage.files import sampled_digest, sha256_bytes

KEEP_FROM_DIGEST = ("samples", "observers", "evaluate", "name", "requires", "data")
"""Parts of a manifest that may change between a run and its resumption: they do not touch what is trained."""
BOOKKEEPING = ("generator_steps", "checkpoint_every", "keep", "max_bad_steps", "device", "ema_device", "lora_copies",
               "deterministic")  # fmt: skip
"""The same of ``train:``; a rate that falls to its ``end_lr`` by the last step makes the steps decisive."""
UNSET = (("global_batch", None), ("targets", None))  # later keys: a run that was begun before there were such goes on
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors")
"""Whose versions may change the numbers of a run."""


def resolve(checked: CheckedManifest) -> dict[str, Any]:
    """Return a manifest with every default filled in and every path made absolute, as plain data.

    It can be written as YAML and loaded again.
    """
    data: dict[str, Any] = checked.manifest.model_dump(mode="json", by_alias=True)
    for part in checked.parts():
        target: Any = data
        for step in part.loc:
            target = target[step]
        target["options"] = part.settings.model_dump(mode="json", by_alias=True)
    for loss in checked.losses:  # perhaps not all of the manifest's: a measuring run leaves some out
        written = data["losses"][loss.loss.loc[1]]
        written["slot"] = loss.slot
        written["streams"] = sorted(loss.streams) if loss.streams is not None else None
    for name, slot in checked.slots.items():
        data["slots"][name]["alpha"] = slot.alpha
    return data


def manifest_digest(checked: CheckedManifest) -> str:
    """Hash all that decides what is trained: the manifest without its bookkeeping, teachers' files, and the pools.

    Where the files lie is no part of it, only what they hold: a run, its data or its environment may be moved.
    """
    data = {key: _pathless(value, key == "base") for key, value in decisive(resolve(checked)).items()}
    inputs = {"pools": dict(pool_digests(checked)), "files": dict(input_digests(checked))}
    return hashlib.sha256(json.dumps([data, inputs], sort_keys=True, default=str).encode()).hexdigest()


def decisive(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a resolved manifest that decides what is trained."""
    kept = {key: value for key, value in data.items() if key not in KEEP_FROM_DIGEST}
    last = [slot["lr"][-1] for slot in data["slots"].values() if isinstance(slot["lr"], list)]
    left_out = BOOKKEEPING[1:] if any(phase.get("end_lr") is not None for phase in last) else BOOKKEEPING
    train = {key: value for key, value in kept["train"].items() if key not in left_out and (key, value) not in UNSET}
    effects = [{key: value for key, value in effect.items() if (key, value) not in UNSET} for effect in kept["effects"]]
    return kept | {"train": train, "effects": effects}


def plugin_digests(checked: CheckedManifest) -> dict[str, str]:
    """Return plugin -> distribution, version and hash of its source, for all plugins that decide what is trained."""
    owners = {
        part.entry.owner.plugin: part.entry.owner for part in checked.parts() if part.loc[0] not in KEEP_FROM_DIGEST
    }
    return {
        str(name): f"{owner.distribution} {owner.version}, source {owner.source_digest()[:16]}"
        for name, owner in sorted(owners.items())
    }


def input_digests(checked: CheckedManifest) -> Iterator[tuple[str, str]]:
    """Yield key path and hash of what a run starts from: teachers' files, the slots' ``init``, files that parts need."""
    for path, file in _adapters(checked):
        yield path, adapter_digest(file)
    for part in checked.parts():
        if part.loc[0] not in KEEP_FROM_DIGEST:
            found = [_contents(file) for file in part.needs.files if file.exists()]
            yield f"{part.key}.files", sha256_bytes(json.dumps(found).encode())


def _adapters(checked: CheckedManifest) -> Iterator[tuple[str, Path]]:
    for part in checked.teachers.values():
        if part is not None and part.needs.adapter is not None:
            yield part.key, part.needs.adapter
    for name, slot in checked.manifest.slots.items():
        if isinstance(slot.init, Path) and slot.checkpoint is None:
            yield f"slots.{name}.init", slot.init
        if slot.checkpoint is not None:
            yield f"slots.{name}.checkpoint", slot.checkpoint / f"{name}.safetensors"


def adapter_digest(path: Path) -> str:
    """Return `sampled_digest` of an adapter file (or of that in a folder), or that there is none."""
    try:
        return sampled_digest(find_file(path))
    except (OSError, CldistillError):
        return "absent"


def pool_digests(checked: CheckedManifest) -> Iterator[tuple[str, str]]:
    """Yield every pool and a hash of its listing: an added or exchanged picture changes what is drawn.

    By names, prompts and sizes; the pictures themselves are hashed where they are encoded.
    """
    for pool, items in sorted(checked.items.items()):
        found = hashlib.sha256()
        for item in items:
            files = [*item.sources, *([item.target] if item.target is not None else [])]
            sizes = [file.stat().st_size if file.is_file() else -1 for file in files]
            found.update(json.dumps([item.key, item.prompt, [file.name for file in files], sizes]).encode())
        yield pool, found.hexdigest()


def resolved_text(checked: CheckedManifest, *, portable: bool = False) -> str:
    """Return the resolved manifest as YAML; comments tell the versions and inputs that it was resolved with.

    ``portable``: for a published folder, where a path of this machine would say nothing and tell of it; only the name
    of a file or folder is left.
    """
    data = resolve(checked)
    body = yaml.safe_dump(_pathless(data, listed=False) if portable else data, sort_keys=False, allow_unicode=True)
    owners = sorted({(part.entry.owner.distribution, part.entry.owner.version) for part in checked.parts()})
    parts = [
        _comment("Resolved by cldistill; plugins:", [f"{name} {number}" for name, number in owners]),
        _comment("libraries:", [f"{name} {_version(name)}" for name in LIBRARIES]),
        _comment(
            "adapters that it starts from (hash of size and content):",
            [f"{path} {file.name} {adapter_digest(file)}" for path, file in _adapters(checked)],
        ),
        _comment("pools (hash of the listing):", [f"{pool} {digest}" for pool, digest in pool_digests(checked)]),
    ]
    return "".join(parts) + body


def _pathless(value: Any, listed: bool) -> Any:
    """Put the name in place of each path of this machine; if ``listed``, the contents of what lies there.

    Files that decide what is trained are hashed apart (`input_digests`), folders of pictures as pools.
    """
    if isinstance(value, dict):
        return {key: _pathless(inner, listed) for key, inner in value.items()}
    if isinstance(value, list):
        return [_pathless(inner, listed) for inner in value]
    if not isinstance(value, str) or not _is_local_path(value):
        return value
    return _contents(Path(value)) if listed and Path(value).exists() else Path(value).name


def _contents(path: Path) -> list[list[str]]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[file.relative_to(path).as_posix(), sampled_digest(file)] for file in files]


def _comment(title: str, lines: list[str]) -> str:
    return "".join(f"# {line}\n" for line in [title, *(f"  {line}" for line in lines)]) if lines else ""


@cache  # it parses the whole metadata
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _is_local_path(text: str) -> bool:
    """Return whether a text is a path of this machine, and not a prompt that begins with a slash."""
    if not Path(text).is_absolute():
        return False
    try:
        return Path(text).exists() or not any(letter.isspace() for letter in text)
    except OSError:  # too long for a name: prose
        return False
