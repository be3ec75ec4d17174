"""VAE, tokenizers and text encoders of one folder, each read when it is first used, inside a stock pipeline."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging as transformers_logging

from cldistill.errors import CldistillError, OptionsError
from cldistill_plugins.diffusers_base.folder import read_config

NO_WORDS = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"}
"""Files of a tokenizer beside its vocabulary."""


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


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Turn what a library says of a damaged part of a base into an `OptionsError` that names the part."""
    # Without these transformers would make a tokenizer without words, or a model of its own default size, of billions.
    if name.startswith("tokenizer"):
        if not {path.name for path in (folder / name).glob("*.*")} - NO_WORDS:
            raise OptionsError(f"base model: {folder / name} holds no vocabulary; fetch it again")
    elif not read_config(folder, f"{name}/config.json").keys() & {"model_type", "_class_name"}:
        raise OptionsError(f"base model: {folder / name}/config.json names no kind of model; fetch it again")
    try:
        yield
    except (CldistillError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise  # it is not the file's fault
    except Exception as error:  # the libraries raise a dozen unrelated types, tokenizers a bare Exception
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OptionsError(
            f"base model: {folder / name} cannot be read ({type(error).__name__}: {error}); fetch it again"
        ) from error


def read_model(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """Read a model of a base from a subfolder, frozen and in eval mode; ``kind`` is its class.

    Raises:
        OptionsError: it cannot be read, or its files lack a tensor, which diffusers and transformers draw at random.
    """
    with reading(folder, name):
        model, report = kind.from_pretrained(
            folder, subfolder=name, local_files_only=True, output_loading_info=True, **options
        )
    if missing := sorted(report["missing_keys"]):
        raise OptionsError(
            f"base model: the weights in {folder / name} lack {len(missing)} of their tensors, such as {missing[0]}; "
            "fetch it again"
        )
    return model.requires_grad_(False).eval()


class Encoders:
    """A stock pipeline without transformer: its own helpers encode and decode.

    Args:
        pipeline: The stock pipeline's class.
        classes: Subfolder -> class of each part that it reads.
        empty: Further parts that the pipeline's constructor asks for and that stay None.
    """

    def __init__(
        self, folder: Path, dtype: torch.dtype, pipeline: Any, classes: Mapping[str, Any], empty: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.dtype = dtype
        self.device = "cpu"
        self.classes = classes
        absent = dict.fromkeys((*classes, *empty, "transformer"))
        self.stock: Any = pipeline(scheduler=FlowMatchEulerDiscreteScheduler(), **absent)

    @property
    def text_encoder_loaded(self) -> bool:
        """Return whether the text encoder is in memory."""
        return self.stock.text_encoder is not None

    def to(self, device: str) -> None:
        """Move what is loaded, and what will be."""
        self.device = device
        for name in self.classes:
            part = getattr(self.stock, name)
            if isinstance(part, torch.nn.Module):
                part.to(device)

    def part(self, name: str) -> Any:
        """Return a part, loading it if need be."""
        if getattr(self.stock, name) is None:
            self.stock.register_modules(**{name: self.load(name)})
        return getattr(self.stock, name)

    @quiet()
    def load(self, name: str) -> Any:
        """Read a part: a tokenizer, or a model, frozen and in eval mode, in the base's dtype and on its device."""
        if not name.startswith("tokenizer"):
            return read_model(self.classes[name], self.folder, name, dtype=self.dtype).to(self.device)
        with reading(self.folder, name):
            return self.classes[name].from_pretrained(self.folder, subfolder=name, local_files_only=True)

    def load_text(self) -> None:
        """Bring tokenizers and text encoders to memory."""
        for name in self.classes:
            if name != "vae":
                self.part(name)

    def drop_text(self) -> None:
        """Release the text encoders' memory; the VAE stays for decoding, and tokenizers are small."""
        dropped = [name for name in self.classes if name != "vae" and not name.startswith("tokenizer")]
        if all(getattr(self.stock, name) is None for name in dropped):
            return  # to collect takes a third of a second
        self.stock.register_modules(**dict.fromkeys(dropped))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
