"""The description of a base over a folder in the diffusers layout, for ``check`` and ``plan`` (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cldistill.errors import OptionsError, nearest
from cldistill.records import BaseDescription
from cldistill_plugins.diffusers_base.settings import DTYPE_BYTES, QUANTISED_BYTES, DiffusersSettings

PIXELS_PER_TOKEN = 16
"""The VAEs of these families shrink by 8, and 2 x 2 latents make a token."""


def resolve_targets(modules: Iterable[str], targets: Iterable[str]) -> tuple[str, ...]:
    """Return the full names, in the model's order, of the modules that ``targets`` select: names, endings, patterns with ``*``.

    Raises `OptionsError` for a target that selects nothing, with the nearest ending that would.
    """
    names = tuple(modules)
    chosen: set[str] = set()
    for target in targets:
        found = [name for name in names if fnmatchcase(name, target) or name.endswith(f".{target}")]
        if not found:
            endings = {name.partition("transformer_blocks.0.")[2] or name for name in names if ".1." not in name}
            raise OptionsError(f"base.options.targets: {target!r} names no linear module{nearest(target, endings)}")
        chosen.update(found)
    return tuple(name for name in names if name in chosen)


def family_names(table: Mapping[str, str | Sequence[str]], modules: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Spell a table of other names out over the modules that a model has.

    Args:
        table: A family's own name, ``{}`` for a block's number -> the module's name here, or those of which its rows
            are made: ``{"double_blocks.{}.img_attn.qkv": ("transformer_blocks.{}.attn.to_q", ...)}``.
        modules: The model's modules.
    """
    count = 1 + max((int(piece) for name in modules for piece in name.split(".") if piece.isdigit()), default=0)
    found: dict[str, tuple[str, ...]] = {}
    for other, own in table.items():
        names = (own,) if isinstance(own, str) else tuple(own)
        for index in range(count if "{}" in other else 1):
            spelled = tuple(name.format(index) for name in names)
            if all(name in modules for name in spelled):
                found[other.format(index)] = spelled
    return found


def weight_bytes(
    settings: DiffusersSettings, parameters: int, modules: Mapping[str, tuple[int, int]], blocks: Iterable[str]
) -> float:
    """Return the bytes of a backbone as it is kept: quantised are the matrices of its lists of ``blocks``, and nothing else."""
    each = float(DTYPE_BYTES[settings.dtype])
    if settings.quantise is None:
        return parameters * each
    inside = sum(tall * wide for name, (tall, wide) in modules.items() if name.partition(".")[0] in set(blocks))
    return parameters * each - inside * (each - QUANTISED_BYTES[settings.quantise])


def describe_folder(
    settings: DiffusersSettings, *, blocks: Mapping[str, str],
    names: Mapping[str, str | Sequence[str]], **family: Any,
) -> BaseDescription:  # fmt: skip
    """Describe a base from its config and the headers of its weights.

    Args:
        blocks: List of blocks in the transformer, in the order in which they run -> the config's entry with their number.
        names: The modules' names in files of the family's own trainers, as `family_names` reads them.
        family: Further fields of `cldistill.records.BaseDescription`.
    """
    folder = settings.folder
    config = folder.config()
    modules, parameters = folder.shapes()
    width = int(config["num_attention_heads"] * config["attention_head_dim"])
    side = round(settings.resolution / 32) * 32 // PIXELS_PER_TOKEN
    numbered = [f"{name}.{index}" for name, entry in blocks.items() for index in range(config[entry])]
    return BaseDescription(
        parameters=parameters,
        modules=modules,
        targets=resolve_targets(modules, settings.targets),
        latent_tokens=side * side,
        channels=config["in_channels"],
        hidden=width,
        layers=len(numbered),
        weight_bytes=weight_bytes(settings, parameters, modules, blocks),
        bytes_per_parameter=float(DTYPE_BYTES[settings.dtype]),
        encoder_bytes=folder.encoder_parameters() * DTYPE_BYTES[settings.dtype],
        guidance_scale=settings.guidance_scale,
        tokenizer=folder.tokenizer_file(),
        blocks=dict.fromkeys(numbered, width),
        adapter_names=family_names(names, modules),
        prompt_width=config["joint_attention_dim"],
        **family,
    )
