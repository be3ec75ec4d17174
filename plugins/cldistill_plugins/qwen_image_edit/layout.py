"""A model's files on disk, and all that ``check`` and ``plan`` read from them without loading weights (torch-free)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from cldistill.errors import OptionsError
from cldistill.storage.headers import read_tensors_header
from cldistill.storage.untrusted import package_path, parse_json

CONFIG = "transformer/config.json"
TOKENIZER_FILES = ("tokenizer/tokenizer.json", "processor/tokenizer.json")


def find_folder(model: str, revision: str | None = None) -> Path | None:
    """Return the folder of a model: package data, a folder, or the cached snapshot of a hub id (None: not on disk).

    Raises `OptionsError` where a path or package is named that does not exist: such a reference is no hub id.
    """
    if model.startswith("package:"):
        return _package_folder(model)
    path = Path(model)
    if path.is_dir():
        return path
    if path.is_absolute():
        raise OptionsError(f"base model: {model}: no such folder")
    return _cached_snapshot(model, revision)


def _package_folder(model: str) -> Path:
    package, _, inner = model.removeprefix("package:").partition("/")
    try:
        folder = package_path(model)
    except ModuleNotFoundError as error:
        raise OptionsError(
            f"base model: {model}: the package {package!r} is not installed, or registered no plugins of cldistill"
        ) from error
    if not folder.is_dir():
        raise OptionsError(f"base model: {model}: the package {package!r} has no folder {inner!r}")
    return folder


def _cached_snapshot(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, CONFIG, revision=revision)
    except HFValidationError as error:
        raise OptionsError(f"base model: {model!r} is neither a folder nor a hub id") from error
    return Path(found).parent.parent if isinstance(found, str) else None


def transformer_config(model: str, revision: str | None = None) -> dict[str, Any]:
    """Read ``transformer/config.json`` of a folder or cached snapshot, else the config that this plugin ships.

    Raises `OptionsError` for a folder without one, another architecture, or a hub id that is neither cached nor known.
    """
    folder = find_folder(model, revision)
    if folder is None:
        return dict(_shipped(model)["transformer"])
    path = folder / CONFIG
    if not path.is_file():
        raise OptionsError(f"base model: {folder} has no {CONFIG}; it must be a pipeline in the diffusers layout")
    try:
        config: dict[str, Any] = parse_json(path.read_bytes())
    except ValueError as error:
        raise OptionsError(f"base model: {path} is not JSON ({error})") from error
    kind = config.get("_class_name")
    if kind != "QwenImageTransformer2DModel":
        raise OptionsError(f"base model: {path} describes a {kind}, not a QwenImageTransformer2DModel")
    return config


def encoder_parameters(model: str, revision: str | None = None) -> int:
    """Count the parameters of text encoder and VAE from the headers of their files, or as shipped."""
    folder = find_folder(model, revision)
    if folder is None:
        return int(_shipped(model)["encoder_parameters"])
    paths = [path for part in ("text_encoder", "vae") for path in sorted((folder / part).glob("*.safetensors"))]
    return sum(prod(entry["shape"]) for path in paths for entry in read_header(path).values())


def tokenizer_file(model: str, revision: str | None = None) -> Path | None:
    """Return the ``tokenizer.json`` of a model, if it is on disk."""
    folder = find_folder(model, revision)
    candidates = [] if folder is None else [folder / name for name in TOKENIZER_FILES]
    return next((path for path in candidates if path.is_file()), None)


def read_header(path: Path) -> Mapping[str, dict[str, Any]]:
    """Return tensor name -> ``dtype``, ``shape``, ``data_offsets`` of a safetensors file, reading its header alone."""
    try:
        with path.open("rb") as file:
            return read_tensors_header(file).tensors
    except (OSError, ValueError) as error:
        raise OptionsError(f"base model: {path} is no readable safetensors file ({error})") from error


def _shipped(model: str) -> dict[str, Any]:
    configs = files(__package__).joinpath("configs")
    resource = configs.joinpath(f"{model.replace('/', '--')}.json")
    if not resource.is_file():
        known = ", ".join(sorted(item.name.removesuffix(".json").replace("--", "/") for item in configs.iterdir()))
        raise OptionsError(
            f"base model: {model!r} is neither a folder nor in the hub's local cache; download it first "
            f"(`hf download {model}`) or give a folder in the diffusers layout. Known without download: {known}"
        )
    shipped: dict[str, Any] = json.loads(resource.read_text(encoding="utf-8"))
    return shipped
