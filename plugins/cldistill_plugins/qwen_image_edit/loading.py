"""Reads the parts of a pipeline folder one by one, so that a cached run never loads the text encoder."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer
from transformers.utils import logging as transformers_logging

from cldistill.errors import OptionsError
from cldistill.storage.headers import header_length
from cldistill_plugins.qwen_image_edit import single_frame
from cldistill_plugins.qwen_image_edit.layout import find_folder, transformer_config
from cldistill_plugins.qwen_image_edit.processor import PromptProcessor, read_picture_config
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "processor")
GEOMETRY = ("resolution", "vl_resolution", "dtype", "zero_cond_t", "round_timesteps")
SMALL_FILE = 64 * 1024**2
SAMPLES, SAMPLE_BYTES = 256, 4096


def fetch(settings: QwenImageEditSettings) -> Path:
    """Return the model's folder, downloading a hub id that is not complete in the cache.

    Raises `OptionsError` when it cannot be had.
    """
    folder = find_folder(settings.model, settings.revision)
    if folder is not None and (settings.model.startswith("package:") or Path(settings.model).is_dir()):
        return folder
    from huggingface_hub import snapshot_download

    patterns = ["model_index.json", *(f"{part}/*" for part in PARTS)]
    try:
        return Path(snapshot_download(settings.model, revision=settings.revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise OptionsError(
            f"base.options.model: {settings.model!r} could not be downloaded ({error}); check name and network, "
            "or give a folder in the diffusers layout"
        ) from error


def torch_dtype(settings: QwenImageEditSettings) -> torch.dtype:
    """Return the dtype of the frozen weights."""
    dtype = getattr(torch, settings.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and deprecations of the libraries' own arguments out of the run's display."""
    bars, hub_silent = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch_dtype.*", category=FutureWarning)
            yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
        if hub_silent:  # the line above speaks for huggingface_hub, too
            disable_progress_bars()


@quiet()
def load_backbone(folder: Path, settings: QwenImageEditSettings) -> QwenImageTransformer2DModel:
    """Load the transformer, frozen and in eval mode."""
    changes: dict[str, Any] = {} if settings.zero_cond_t is None else {"zero_cond_t": settings.zero_cond_t}
    model = QwenImageTransformer2DModel.from_pretrained(
        folder, subfolder="transformer", dtype=torch_dtype(settings), local_files_only=True, **changes
    )
    return model.requires_grad_(False).eval()


def backbone_structure(settings: QwenImageEditSettings) -> QwenImageTransformer2DModel:
    """Build the transformer from its config alone, on the meta device: modules and shapes, no weights."""
    config = transformer_config(settings.model, settings.revision)
    changes = {} if settings.zero_cond_t is None else {"zero_cond_t": settings.zero_cond_t}
    with torch.device("meta"):
        model = QwenImageTransformer2DModel.from_config(config | changes)
    return model.to(torch_dtype(settings)).requires_grad_(False).eval()


@quiet()
def load_vae(folder: Path, settings: QwenImageEditSettings) -> AutoencoderKLQwenImage:
    """Load the VAE, frozen, its convolutions shortened for single pictures."""
    dtype = torch_dtype(settings)
    model = AutoencoderKLQwenImage.from_pretrained(folder, subfolder="vae", dtype=dtype, local_files_only=True)
    single_frame.shorten(model)
    return model.requires_grad_(False).eval()


@quiet()
def load_text_encoder(folder: Path, settings: QwenImageEditSettings) -> Qwen2_5_VLForConditionalGeneration:
    """Load the Qwen2.5-VL text encoder, frozen."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, subfolder="text_encoder", dtype=torch_dtype(settings), local_files_only=True
    )
    return model.requires_grad_(False).eval()


@quiet()
def load_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """Load the tokenizer alone."""
    return Qwen2Tokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)


def load_processor(folder: Path, tokenizer: Qwen2Tokenizer) -> PromptProcessor:
    """Make the processor that lays out pictures and text for the text encoder."""
    return PromptProcessor(tokenizer, read_picture_config(folder))


def fingerprint(folder: Path, settings: QwenImageEditSettings) -> str:
    """Hash everything that changes what the base encodes or predicts: configs, weights, precision and geometry.

    Files up to 64 MiB are hashed whole; of larger ones the header, the size and 256 blocks spread over the file, so
    that a fine-tuned copy of a 40 GB model differs and a run still starts at once.
    """
    digest = hashlib.sha256()
    options = [getattr(settings, name) for name in GEOMETRY]
    digest.update(repr(options).encode())
    for part in PARTS:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt"):
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
