"""Checkpoints: written aside, flushed, renamed; hashed when saved and checked before they are used.

::

    checkpoints/step-000100/
      student.safetensors  critic.safetensors  optimizer-student.safetensors …   one file a group of tensors
      checkpoint.json      step, size and SHA-256 of each file, the caller's meta, and a hash of all that

The same tensors and meta give the same bytes: keys are sorted and nothing holds a time or a host name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cldistill.errors import CheckpointError
from cldistill.records import Change
from cldistill.storage.files import PARTIAL, remove, sha256_bytes, sha256_file, write_aside

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
INDEX = "checkpoint.json"
SUFFIX = ".safetensors"
_STEP = re.compile(r"step-(\d{6,})")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk whose index has been read."""

    step: int
    path: Path
    meta: Mapping[str, Any]
    """The plain data that the caller of `save` gave, as it came back from JSON."""
    files: Mapping[str, Mapping[str, Any]]
    """Group -> ``{"bytes": size, "sha256": hash}``."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the tensor groups that it holds."""
        return tuple(self.files)

    def load(self, group: str) -> dict[str, Tensor]:
        """Return one group's tensors, on the CPU.  Raises CheckpointError where it has no such group."""
        from safetensors.torch import load_file

        if group not in self.files:
            held = ", ".join(self.groups) or "nothing"
            raise CheckpointError(f"{self.path} holds no {group!r}, only {held}: was it saved by another manifest?")
        return cast("dict[str, Tensor]", load_file(self.path / f"{group}{SUFFIX}"))

    def must_belong_to(
        self, manifest: str, ranks: int, precision: str | None = None, plugins: Mapping[str, str] | None = None,
        may_change: Collection[Change] = (),
    ) -> None:  # fmt: skip
        """Compare with the run that wants to go on from here; what is not given is not compared.

        Raises:
            CheckpointError: another manifest or mixed precision, or, unless they ``may_change``, other plugins or ranks (see
                `changes`): the batches, noises or roundings to come would not be those of the unbroken run.
        """
        if self.meta.get("manifest") != manifest:
            raise CheckpointError(
                f"{self.path} belongs to another manifest, or to other teachers or pictures: choose another --output, there "
                "with `--set slots.student.checkpoint=` and this path to start from its weights, or --fresh to start over"
            )
        if "ranks" not in may_change and self.changes(ranks):
            then = self.meta["processes"]
            raise CheckpointError(
                f"{self.path} was trained by {then} process{'es' if then != 1 else ''}, and this is a run of {ranks}: "
                f"go on with `accelerate launch --num_processes {then}` (on the CPU `torchrun --nproc_per_node {then}`), "
                "choose another --output, --fresh to start over, or go on all the same by --changed-ranks, which the run will "
                "record: every rank draws train.batch_size items for itself, so updates will have others, and another number "
                "of them (a manifest with train.global_batch has the same items on any number of ranks)"
            )
        if precision is not None and self.meta.get("mixed_precision", precision) != precision:
            raise CheckpointError(
                f"{self.path} was trained in mixed precision {self.meta['mixed_precision']!r}, and this run is in "
                f"{precision!r}: give the same --mixed_precision to accelerate launch, or set train.mixed_precision"
            )
        if "plugins" not in may_change and (changed := self.changes(None, plugins)):
            listing = "\n  ".join(changed)
            raise CheckpointError(
                f"{self.path} was trained by other plugins:\n  {listing}\nput the old ones back, choose another --output, "
                "--fresh to start over, or go on all the same by --changed-plugins, which the run will record"
            )

    def changes(self, ranks: int | None, plugins: Mapping[str, str] | None = None) -> list[str]:
        """Return one line for each that is not what it was here: the number of ranks, plugins (name -> version and hash)."""
        before = self.meta.get("processes")  # None: each item is keyed by its place, so that any number draws the same
        counts = [] if None in (ranks, before) or ranks == before else [f"ranks were {before}, and are {ranks}"]
        then: Mapping[str, str] = self.meta.get("plugins", plugins)  # older checkpoints do not say
        return counts + [
            f"plugin {name!r} was {then.get(name, 'no part of it')}, and is {found}"
            for name, found in (plugins or {}).items()
            if then.get(name) != found
        ]

    def verify(self) -> None:
        """Compare every file with the size and hash in the index; CheckpointError at the first difference."""
        for group, entry in self.files.items():
            path = self.path / f"{group}{SUFFIX}"
            if not path.is_file():
                raise CheckpointError(f"{path.name} is missing")
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise CheckpointError(f"{path.name} has {size} bytes instead of {entry['bytes']}")
            if sha256_file(path) != entry["sha256"]:
                raise CheckpointError(f"the content of {path.name} does not match its hash")


def save(root: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any], keep: int) -> Path:
    """Write ``root/step-000100`` and keep the newest ``keep`` checkpoints up to this step; returns the new folder.

    The tensors may be live ones on any device: one group at a time is brought to the CPU and written.
    ``meta`` must be plain JSON.  Older checkpoints are deleted only once the new one is complete on disk; those of
    later steps (a resume may have had to go back behind damaged ones) stay until the run reaches and replaces them.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    path = root / f"step-{step:06d}"
    with write_aside(path) as folder:
        files = {name: _write_group(folder, name, groups[name]) for name in sorted(groups)}
        body: dict[str, Any] = {"format": FORMAT, "step": step, "files": files, "meta": dict(meta)}
        (folder / INDEX).write_text(_json({**body, "digest": _digest(body)}, indent=1) + "\n", encoding="utf-8")
    for partial in root.glob(f".step-*{PARTIAL}"):  # of killed runs: a run has one writer, and that has just finished
        remove(partial)
    for old in [folder for number, folder in _steps(root) if number <= step][:-keep]:
        remove(old)
    return path


def latest(root: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, or None where there is none yet.

    Every damaged or half-written one that is passed over is named to ``warn`` with the reason.  If there are
    checkpoints but all are damaged, CheckpointError lists them: to start again silently would lose the run.
    """
    if not root.is_dir():
        return None
    for partial in sorted(root.glob(f".step-*{PARTIAL}")):
        warn(f"{root / partial.name}: a checkpoint that was half-written when its run was killed; ignored")
    problems: list[str] = []
    for _, folder in reversed(_steps(root)):
        try:
            checkpoint = read(folder)
            checkpoint.verify()
        except (CheckpointError, OSError) as error:
            problems.append(f"{folder}: {error}")
            warn(f"{folder} is damaged: {error}; trying the one before it")
            continue
        return checkpoint
    if problems:
        listing = "\n  ".join(problems)
        raise CheckpointError(
            f"every checkpoint is damaged:\n  {listing}\n"
            f"restore one of them from a copy, or delete {root} to train from the beginning"
        )
    return None


def read(folder: Path) -> Checkpoint:
    """Read the index of one checkpoint folder, without hashing its tensors (see `Checkpoint.verify`)."""
    try:
        body = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        digest = body.pop("digest")
        whole = digest == _digest(body)
    except FileNotFoundError:
        raise CheckpointError(f"it is half-written: {INDEX} is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise CheckpointError(f"{INDEX} cannot be read") from None
    if not whole:
        raise CheckpointError(f"{INDEX} does not match its own hash")
    if body["format"] != FORMAT:
        raise CheckpointError(f"it has format {body['format']}, this cldistill reads format {FORMAT}")
    return Checkpoint(body["step"], folder, body["meta"], body["files"])


def _write_group(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write one group and return its entry of the index.

    No header metadata: safetensors sorts tensors, but writes metadata in the order of a hash map.
    """
    from safetensors.torch import save_file

    assert _GROUP.fullmatch(name), f"{name!r} is no usable file name"
    path = folder / f"{name}{SUFFIX}"
    save_file(_separate(tensors), path)
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors of which no two share a storage: safetensors refuses those."""
    separate: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _steps(root: Path) -> list[tuple[int, Path]]:
    found = ((_STEP.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)


def _digest(body: Mapping[str, Any]) -> str:
    return sha256_bytes(_json(body).encode())
