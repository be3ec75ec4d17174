"""The alpha of an adapter's modules: from a tensor among the weights, diffusers' header, or peft's config file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cldistill.errors import AdapterFormatError

HEADER = "lora_adapter_metadata"
"""diffusers' header entry: JSON of peft's LoraConfig, its keys prefixed ``transformer.``."""
PEFT_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Alphas:
    """Alpha of each module; a file that says nothing means ``alpha = rank``, as in diffusers and ComfyUI."""

    config: Mapping[str, Any]
    """peft's LoraConfig, as far as the file tells it."""

    @classmethod
    def read(cls, file: Path, metadata: Mapping[str, str]) -> Alphas:
        """Read the header's config or, for peft's own files, the ``adapter_config.json`` beside them.

        Raises:
            AdapterFormatError: if a config cannot be read, or says DoRA.
        """
        beside, config = file.parent / PEFT_CONFIG, {}
        if HEADER in metadata:
            config = _transformer(_load(file, HEADER, metadata[HEADER]))
        elif file.name == "adapter_model.safetensors" and beside.is_file():
            config = _load(beside, "it", beside.read_text())
        if config.get("use_dora"):
            raise AdapterFormatError(
                f"{file}: its config says use_dora; DoRA is not supported: merge it to a plain LoRA"
            )
        return cls(config)

    def lora(self, module: str, rank: int, scalar: float | None) -> float:
        """Return the alpha for which ``alpha / rank`` is the module's scale (rsLoRA's ``alpha / sqrt(rank)`` too)."""
        if scalar is not None:
            return scalar
        alpha = self._alpha(module)
        if alpha is None:
            return float(rank)
        return alpha * math.sqrt(rank) if self.config.get("use_rslora") else alpha

    def lokr(self, module: str, decomposed: int, scalar: float | None) -> float:
        """Return a LoKr's scale.

        LyCORIS, ComfyUI and ai-toolkit: ``alpha / rank`` where a factor is decomposed, else 1 whatever alpha says
        (trainers write 1e10 there).  peft always divides by its own ``r``.
        """
        if scalar is not None:
            return scalar / decomposed if decomposed else 1.0
        alpha, rank = self._alpha(module), self._of("rank_pattern", module, self.config.get("r"))
        return 1.0 if alpha is None or not rank else alpha / rank

    def _alpha(self, module: str) -> float | None:
        return self._of("alpha_pattern", module, self.config.get("lora_alpha", self.config.get("alpha")))

    def _of(self, pattern: str, module: str, default: float | None) -> float | None:
        """Find a module in a rank or alpha pattern by peft's rule: the key is a regular expression for the name's end."""
        for key, value in (self.config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                return float(value)
        return None if default is None else float(default)


def _load(file: Path, name: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise AdapterFormatError(f"{file}: {name} is not JSON ({error}); save the adapter again") from error
    if not isinstance(config, dict):
        raise AdapterFormatError(f"{file}: {name} is not a JSON object; save the adapter again")
    return config


def _transformer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Strip diffusers' component prefix; the transformer's entries win over a text encoder's."""
    own = {key.removeprefix("transformer."): value for key, value in config.items() if key.startswith("transformer.")}
    return own or {key: value for key, value in config.items() if "." not in key}
