"""A model's folder in the diffusers layout: found, fetched, read and hashed, without torch and without loading weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from cldistill.errors import OptionsError, UnsafePathError
from cldistill.storage.headers import header_length, read_tensors_header
from cldistill.storage.untrusted import package_path, parse_json

CONFIG = "transformer/config.json"
TOKENIZER_FILES = ("tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json", "processor/tokenizer.json")
SMALL_FILE = 64 * 1024**2
SAMPLES, SAMPLE_BYTES = 256, 4096
MODELS = ("transformer", "vae", "text_encoder", "text_encoder_2")
"""Parts that hold weights."""


@dataclass(frozen=True)
class DiffusersFolder:
    """A model as a manifest names it; nothing is looked at before a method asks."""

    model: str
    """Hub id, folder, or ``package:<package>/<path>``."""
    revision: str | None
    transformer: str
    """The class that ``transformer/config.json`` must name."""
    parts: tuple[str, ...]
    """Subfolders that the family needs."""
    package: str
    """The plugin that ships ``configs/<owner>--<name>.json`` of the family's hub ids."""

    def find(self) -> Path | None:
        """Return the folder: package data, a folder, or the cached snapshot of a hub id (None: not on disk).

        Raises `OptionsError` where a path or package is named that does not exist: such a reference is no hub id.
        """
        if self.model.startswith("package:"):
            return self._package_folder()
        path = Path(self.model)
        if path.is_dir():
            return path
        if path.is_absolute():
            raise OptionsError(f"base model: {self.model}: no such folder")
        return self._cached_snapshot()

    def fetch(self) -> Path:
        """Return the folder, downloading what a hub id lacks; a complete snapshot asks no network.

        Raises `OptionsError` when it cannot be had.
        """
        folder = self.find()
        if folder is not None and (":" in self.model or Path(self.model).is_dir() or self._complete(folder)):
            return folder
        from huggingface_hub import snapshot_download

        patterns = ["model_index.json", *(f"{part}/*" for part in self.parts)]
        try:
            return Path(snapshot_download(self.model, revision=self.revision, allow_patterns=patterns))
        except Exception as error:  # the hub client raises a dozen unrelated types
            raise OptionsError(
                f"base.options.model: {self.model!r} could not be downloaded ({error}); check name and network, "
                "or give a folder in the diffusers layout"
            ) from error

    def config(self) -> dict[str, Any]:
        """Read ``transformer/config.json`` of a folder or cached snapshot, else the config that the plugin ships.

        Raises `OptionsError` for a folder without one, another architecture, or a hub id neither cached nor known.
        """
        folder = self.find()
        if folder is None:
            return dict(self.shipped()["transformer"])
        config = read_config(folder, CONFIG)
        kind = config.get("_class_name")
        if kind != self.transformer:
            raise OptionsError(f"base model: {folder / CONFIG} describes a {kind}, not a {self.transformer}")
        return config

    def tensors(self, *parts: str) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of every tensor of some parts, from the headers of their files; none if not on disk."""
        folder = self.find()
        paths = [] if folder is None else [p for part in parts for p in sorted((folder / part).glob("*.safetensors"))]
        return {
            f"{path.parent.name}.{name}": tuple(entry["shape"])
            for path in paths
            for name, entry in read_header(path).items()
        }

    def shapes(self) -> tuple[dict[str, tuple[int, int]], int]:
        """Return every linear module of the transformer, name -> (out, in), and the number of its parameters.

        From the weights' headers, else as shipped; for transformers whose matrices are all linear modules.
        """
        found = {name.removeprefix("transformer."): shape for name, shape in self.tensors("transformer").items()}
        if not found:
            shipped = self.shipped()
            return _unrolled(shipped["modules"], shipped["transformer"]), int(shipped["parameters"])
        linear = {
            name.removesuffix(".weight"): (shape[0], shape[1])
            for name, shape in found.items()
            if name.endswith(".weight") and len(shape) == 2
        }
        return {name: linear[name] for name in sorted(linear, key=_natural)}, sum(map(prod, found.values()))

    def encoder_parameters(self) -> int:
        """Count the parameters of text encoders and VAE from the headers of their files, or as shipped."""
        if self.find() is None:
            return int(self.shipped()["encoder_parameters"])
        return sum(map(prod, self.tensors(*MODELS[1:]).values()))

    def tokenizer_file(self) -> Path | None:
        """Return the ``tokenizer.json``, if it is on disk."""
        folder = self.find()
        candidates = [] if folder is None else [folder / name for name in TOKENIZER_FILES]
        return next((path for path in candidates if path.is_file()), None)

    def shipped(self) -> dict[str, Any]:
        """Read what the plugin ships about a hub id; raises `OptionsError` where it ships nothing."""
        configs = files(self.package).joinpath("configs")
        resource = configs.joinpath(f"{self.model.replace('/', '--')}.json")
        if not resource.is_file():
            known = ", ".join(sorted(item.name.removesuffix(".json").replace("--", "/") for item in configs.iterdir()))
            raise OptionsError(
                f"base model: {self.model!r} is neither a folder nor in the hub's local cache; download it first "
                f"(`hf download {self.model}`) or give a folder in the diffusers layout. Known without download: {known}"
            )
        shipped: dict[str, Any] = json.loads(resource.read_text(encoding="utf-8"))
        return shipped

    def _package_folder(self) -> Path:
        package, _, inner = self.model.removeprefix("package:").partition("/")
        try:
            folder = package_path(self.model)
        except UnsafePathError as error:
            raise OptionsError(
                f"base model: {self.model}: the package {package!r} is not installed, or registered no plugins of cldistill"
            ) from error
        if not folder.is_dir():
            raise OptionsError(f"base model: {self.model}: the package {package!r} has no folder {inner!r}")
        return folder

    def _cached_snapshot(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            found = try_to_load_from_cache(self.model, CONFIG, revision=self.revision)
        except HFValidationError as error:
            raise OptionsError(f"base model: {self.model!r} is neither a folder nor a hub id") from error
        return Path(found).parent.parent if isinstance(found, str) else None

    def _complete(self, folder: Path) -> bool:
        """Return whether a snapshot holds every part, and every file that an index of weights names."""
        for part in self.parts:
            indices = sorted((folder / part).glob("*.index.json"))
            shards = {name for path in indices for name in _shards(path)}
            if not all((folder / part / name).is_file() for name in shards):
                return False
            wanted = "*.safetensors" if part in MODELS else "*"
            if not any((folder / part).glob(wanted)):
                return False
        return True


def read_config(folder: Path, *names: str) -> dict[str, Any]:
    """Return the JSON object in the first of some files that a base's folder has.

    Raises `OptionsError` where it has none of them, or the file holds no object.
    """
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise OptionsError(f"base model: {folder} has no {names[0]}; it must be a pipeline in the diffusers layout")
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise OptionsError(f"base model: {path} is not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise OptionsError(f"base model: {path} holds no JSON object; fetch it again")
    return found


def _shards(index: Path) -> list[str]:
    """Return the files that an index of weights names."""
    try:
        return [str(name) for name in parse_json(index.read_bytes())["weight_map"].values()]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise OptionsError(f"base model: {index} is no index of weights ({error!r}); fetch it again") from error


def read_header(path: Path) -> Mapping[str, dict[str, Any]]:
    """Return tensor name -> ``dtype``, ``shape``, ``data_offsets`` of a safetensors file, reading its header alone."""
    try:
        with path.open("rb") as file:
            return read_tensors_header(file).tensors
    except (OSError, ValueError) as error:
        raise OptionsError(f"base model: {path} is no readable safetensors file ({error})") from error


def fingerprint(folder: Path, parts: Sequence[str], options: Sequence[Any]) -> str:
    """Hash all that changes what a base encodes or predicts: configs and weights of its parts, and options.

    Files up to 64 MiB are hashed whole; of larger ones the header, the size and 256 blocks spread over the file, so
    that a fine-tuned copy of a 40 GB model differs and a run still starts at once.
    """
    digest = hashlib.sha256()
    digest.update(repr(list(options)).encode())
    for part in parts:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
                digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
                _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SMALL_FILE:
            digest.update(file.read())
            return
        digest.update(file.read(min(header_length(file), SMALL_FILE)))
        for index in range(SAMPLES):
            file.seek(index * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))


def _unrolled(modules: Mapping[str, Sequence[int]], config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Repeat the modules of a block, written ``blocks.{num_layers}.name``, as often as the config's entry says."""
    found: dict[str, tuple[int, int]] = {}
    for name, (tall, wide) in modules.items():
        count = re.search(r"\{(\w+)\}", name)
        for index in range(config[count[1]] if count else 1):
            found[name.replace(count[0], str(index)) if count else name] = (tall, wide)
    return {name: found[name] for name in sorted(found, key=_natural)}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort ``blocks.10`` after ``blocks.9``."""
    return [(int(piece), "") if piece.isdigit() else (0, piece) for piece in name.split(".")]
