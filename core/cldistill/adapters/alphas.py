"""The scale of each module of an adapter file: alphas in peft's config, which lies in the header or beside the file.

The config is somebody else's: a pattern in it is matched as a list of names, and never run as a regular expression, which
could be made to run for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cldistill.errors import AdapterFormatError
from cldistill.storage.untrusted import parse_json, plain

DIFFUSERS = "lora_adapter_metadata"
"""diffusers' header entry: JSON of peft's LoraConfig, its keys prefixed ``transformer.``."""
PEFT_CONFIG = "adapter_config.json"
PEFT_FILE, PEFT_PREFIX = "adapter_model.safetensors", "base_model.model."
LONGEST_CONFIG = 4_000_000
_NAMES = re.compile(r"\^?(?:\(\?:|\()?([\w.\\|-]+?)\)?\$?")


@dataclass(frozen=True)
class Alphas:
    """Alpha of each module; a file that says nothing means ``alpha = rank``, as in diffusers and ComfyUI."""

    file: Path
    config: Mapping[str, Any]
    """peft's LoraConfig, as far as the file tells it."""

    @classmethod
    def read(cls, file: Path, metadata: Mapping[str, str], *, peft: bool) -> Alphas:
        """Read the header's config or, for a file with peft's own keys or name (``peft``), the one beside it.

        AdapterFormatError where a config cannot be read; UnsafePathError where the one beside it is a pipe, say.
        """
        beside, config = plain(file.parent / PEFT_CONFIG, Path(file.anchor or "/")), {}
        if DIFFUSERS in metadata:
            config = _transformer(_config(file, DIFFUSERS, metadata[DIFFUSERS]))
        elif (peft or file.name == PEFT_FILE) and beside.is_file():
            with beside.open("rb") as stream:
                config = _config(beside, "it", stream.read(LONGEST_CONFIG))
        return cls(file, config)

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
        alpha, rank = self._alpha(module), self._of("rank_pattern", module, self._number("r"))
        return 1.0 if alpha is None or not rank else alpha / rank

    def _alpha(self, module: str) -> float | None:
        return self._of("alpha_pattern", module, self._number("lora_alpha" if "lora_alpha" in self.config else "alpha"))

    def _number(self, key: str) -> float | None:
        value = self.config.get(key)
        return None if value is None else self._as_number(key, value)

    def _as_number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2.0**127:
            raise AdapterFormatError(f"{self.file}: its config gives {key} as {value!r:.80}, which is no number to use")
        return float(value)

    def _of(self, pattern: str, module: str, default: float | None) -> float | None:
        """Find a module in a rank or alpha pattern by peft's rule: the first key that names it, or the end of its name."""
        parts, known = module.split("."), self.patterns[pattern]
        ends = {f"^{module}", *(".".join(parts[index:]) for index in range(len(parts)))}
        found = [known[end] for end in ends & known.keys()]
        return min(found)[1] if found else default

    @cached_property
    def patterns(self) -> dict[str, dict[str, tuple[int, float]]]:
        """``alpha_pattern`` and ``rank_pattern``: end of a name (with ``^``: all of it) -> place in the pattern, value."""
        return {pattern: self._pattern(pattern) for pattern in ("alpha_pattern", "rank_pattern")}

    def _pattern(self, pattern: str) -> dict[str, tuple[int, float]]:
        written = self.config.get(pattern) or {}
        if not isinstance(written, dict):
            raise AdapterFormatError(f"{self.file}: its config's {pattern} is no map of modules to numbers")
        names: dict[str, tuple[int, float]] = {}
        for place, (key, value) in enumerate(written.items()):
            found = _NAMES.fullmatch(key)
            literals = found[1].replace("\\.", ".").split("|") if found else []
            if not literals or any("\\" in name or not name for name in literals):
                raise AdapterFormatError(
                    f"{self.file}: its config's {pattern} has the regular expression {key!r:.80}; only names of modules, or "
                    "ends of them, are read there (an expression could be made to run for ever): write the modules out"
                )
            anchor, number = "^" if key.startswith("^") else "", self._as_number(pattern, value)
            for name in literals:
                names.setdefault(anchor + name, (place, number))
        return names


def _config(file: Path, name: str, text: str | bytes) -> dict[str, Any]:
    try:
        config = parse_json(text[:LONGEST_CONFIG])
        if not isinstance(config, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise AdapterFormatError(f"{file}: {name} is not JSON ({error}); save the adapter again") from error
    return config


def _transformer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Strip diffusers' component prefix; the transformer's entries win over a text encoder's."""
    own = {key.removeprefix("transformer."): value for key, value in config.items() if key.startswith("transformer.")}
    return own or {key: value for key, value in config.items() if "." not in key}
