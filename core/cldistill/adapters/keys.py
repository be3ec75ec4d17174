"""The grammar of adapter keys: every spelling that trainers write, taken apart without torch.

A key is ``<prefix><module>.<part>``.  Prefixes come dotted (``transformer.``, ``diffusion_model.``) or flattened with
underscores (kohya's ``lora_unet_blocks_0_attn_to_q``); flattened names are undone by looking them up among the base's
own module names, so nothing here knows a base model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

DOTTED_PREFIXES = (
    "model.base_model.model.", "base_model.model.",
    "model.diffusion_model.", "diffusion_model.", "transformer.", "pipe.dit.", "module.",
)  # fmt: skip
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_", "_orig_mod_", "_fsdp_wrapped_module_")
"""kohya's, OneTrainer's and LyCORIS', and wrappers that they flattened with the name."""
_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of names that `torch.compile`, FSDP and checkpointing put there, at any depth."""

_LORA = {"lora_A": "down", "lora_down": "down", "lora.down": "down", "lora_B": "up", "lora_up": "up", "lora.up": "up"}
_LOKR = ("lokr_w1_a", "lokr_w1_b", "lokr_w1", "lokr_w2_a", "lokr_w2_b", "lokr_w2")
_KEY = re.compile(
    r"(?P<module>.+?)\.(?:(?P<part>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up|lokr_w[12](?:_[ab])?)"
    r"(?:\.(?P<adapter>(?!weight$|bias$)[\w-]+))?(?:\.weight)?|(?P<alpha>alpha|lora_alpha))"
)
_REFUSED = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"dora_scale|(lora_)?magnitude(_vector)?", "DoRA"),
        (r"hada_.*", "LoHa"),
        (r"oft_.*", "OFT"),
        (r"lokr_t\d|lora_mid", "an adapter with Tucker factors"),
        (r"diff|diff_b", "full weight differences"),
        (r"bias", "an adapter with biases"),
    )
)


@dataclass(frozen=True)
class AdapterKey:
    """One tensor's key, taken apart."""

    module: str
    """The module as written: prefix and all."""
    part: str
    """``down``, ``up``, ``alpha`` or one of ``lokr_w1``, ``lokr_w1_a``, ..."""
    spelling: str
    """The trainer's own name of the part, for the report: ``lora_A/B``, ``lora_down/up``, ``lokr``, ``alpha``."""
    adapter: str = ""
    """peft's adapter name inside the key, e.g. ``default``."""


def parse_key(key: str) -> AdapterKey | None:
    """Take one key apart; None for a key that is no part of a LoRA or LoKr adapter."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    module, part, adapter = found["module"], found["part"], found["adapter"] or ""
    if part is None:
        return AdapterKey(module, "alpha", "alpha")
    if part in _LOKR:
        return AdapterKey(module, part, "lokr", adapter)
    spelling = "lora_A/B" if part in ("lora_A", "lora_B") else "lora_down/up"
    return AdapterKey(module, _LORA[part], spelling, adapter)


def refused_kind(key: str) -> str | None:
    """Name the kind of adapter that a key gives away and that cannot be mounted (DoRA, LoHa, ...), or None."""
    if parse_key(key) is not None:
        return None
    parts = key.split(".")[-3:]
    return next((kind for pattern, kind in _REFUSED if any(map(pattern.fullmatch, parts))), None)


def unwrapped(module: str) -> str:
    """Return a module's name without the parts that wrappers around modules put into it."""
    return _WRAPPERS.sub("", module)


def spellings(module: str) -> Iterator[str]:
    """Yield the names that a module as written may mean, from the whole name to the one without any prefix."""
    yield (module := unwrapped(module))
    prefixes = DOTTED_PREFIXES if "." in module else FLAT_PREFIXES
    prefix = next((p for p in prefixes if module.startswith(p)), "")
    if prefix and len(prefix) < len(module):
        yield from spellings(module.removeprefix(prefix))


@lru_cache(maxsize=8192)
def shorten(module: str) -> str:
    """Strip every known prefix: the name to show where no base is at hand."""
    return list(spellings(module))[-1]


def prefix_of(module: str) -> str:
    """Return everything that `shorten` strips."""
    return unwrapped(module).removesuffix(shorten(module))


class ModuleNames:
    """The base's module names, dotted and flattened, to look names of adapter files up in."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        flat: dict[str, list[str]] = {}
        for name in self._names:
            flat.setdefault(name.replace(".", "_"), []).append(name)
        # Two modules that flatten to one name cannot be told apart: better not found than the wrong one.
        self._flat: Mapping[str, str] = {key: found[0] for key, found in flat.items() if len(found) == 1}

    def resolve(self, module: str) -> str | None:
        """Return the base's full name of a module as an adapter file writes it, or None."""
        for candidate in spellings(module):
            if candidate in self._names:
                return candidate
            if "." not in candidate and candidate in self._flat:
                return self._flat[candidate]
        return None
