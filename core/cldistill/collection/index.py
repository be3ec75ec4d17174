"""The index of an exported collection: effects, triggers, sampler and base, read from its header (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cldistill.adapters.header import find_file, read_header
from cldistill.errors import CollectionError, nearest, readable
from cldistill.schedule import Schedule
from cldistill.storage.untrusted import effect_name, file_stem, inside, is_text, leads_out, parse_json

FORMAT = "1"
WEIGHTS = "pytorch_lora_weights.safetensors"
COMPOSITION = ", and then apply "
MOST_STEPS = 1000


@dataclass(frozen=True)
class CollectionEffect:
    """One effect of a collection."""

    name: str
    trigger: str
    prompt: str
    """The student's prompt, trigger included: what to type in any program."""
    teacher_prompt: str = ""


@dataclass(frozen=True)
class CollectionIndex:
    """A collection without its weights: made by `read_index`, for whoever generates with it or teaches by it."""

    file: Path
    title: str
    effects: tuple[CollectionEffect, ...]
    schedule: Schedule
    """The sampler that was distilled into it."""
    base: str
    base_plugin: str
    base_options: Mapping[str, Any]
    """Options of the base's plugin; ``model`` is missing where the base was a local folder."""
    metadata: Mapping[str, str]
    removed: tuple[CollectionEffect, ...] = ()
    """Effects that were taken out of the catalogue: the weights still know their triggers."""

    def effect(self, name: str) -> CollectionEffect:
        """Return an effect by name; raises `CollectionError` with the nearest name."""
        for effect in self.effects:
            if effect.name == name:
                return effect
        hint = nearest(name, [effect.name for effect in self.effects])
        raise CollectionError(f"{self.file.parent}: this collection has no effect {name!r}{hint}")

    def must_be_of(self, fingerprint: str) -> None:
        """Raise CollectionError unless the collection was made on the base of this fingerprint; older ones do not say."""
        own = self.metadata.get("cldistill.base_fingerprint", fingerprint)
        if own != fingerprint:
            raise CollectionError(
                f"{self.file}: was made on another base ({self.base}, fingerprint {own[:12]}, and this is {fingerprint[:12]}): "
                "other weights, precision or picture size; use that base with the options that the collection's "
                "manifest.resolved.yaml has"
            )

    def prompt(self, names: Sequence[str]) -> str:
        """Return the prompt of one effect, or of several in order (paper, supplement: composing two effects)."""
        prompts = [self.effect(name).prompt.rstrip(". ") for name in names]
        if not prompts:
            raise CollectionError(f"{self.file.parent}: name at least one effect{nearest('', self._names())}")
        if len(prompts) == 1:
            return self.effect(names[0]).prompt
        first, *others = prompts
        return f"Please apply {first} to the input image{''.join(COMPOSITION + prompt for prompt in others)}."

    def _names(self) -> list[str]:
        return [effect.name for effect in self.effects]


def effects_json(effects: Sequence[CollectionEffect]) -> list[dict[str, str]]:
    """Return the effects as ``effects.json`` and the header write them."""
    return [asdict(effect) for effect in effects]


def read_index(path: Path | str) -> CollectionIndex:
    """Read a collection from its folder, or from its weights file alone.

    Raises `CollectionError` for a missing or damaged collection, or an adapter file that is none.
    """
    path = Path(path)
    if not path.exists():
        raise CollectionError(f"{path}: no such collection")
    if path.is_dir() and not (path / WEIGHTS).is_file():
        raise CollectionError(f"{path}: holds no {WEIGHTS}; name the folder that a run wrote as its collection/")
    file = inside(path, WEIGHTS) if path.is_dir() else find_file(path)
    metadata = read_header(file).metadata
    if "cldistill.effects" not in metadata:
        raise CollectionError(f"{file}: is an adapter but no collection: its header names no effects")
    if metadata.get("cldistill.format") != FORMAT:
        found = metadata.get("cldistill.format")
        raise CollectionError(f"{file}: has collection format {found}, this cldistill reads {FORMAT}: upgrade it")
    return _parse(file, metadata)


def _parse(file: Path, metadata: Mapping[str, str]) -> CollectionIndex:
    try:
        index = CollectionIndex(
            file=file,
            title=readable(metadata.get("modelspec.title", file.stem)),
            effects=_effects(metadata["cldistill.effects"]),
            schedule=Schedule(
                int(metadata["cldistill.steps"]),
                float(metadata["cldistill.shift"]),
                metadata.get("cldistill.integer_timesteps") == "true",
                stochastic=metadata.get("cldistill.sampler") != "euler",
            ),
            base=readable(metadata["cldistill.base"]),
            base_plugin=metadata["cldistill.base_plugin"],
            base_options=parse_json(metadata["cldistill.base_options"]),
            metadata=metadata,
            removed=_effects(metadata.get("cldistill.removed", "[]")),
        )
        own, options = index.schedule, index.base_options
        if not (1 <= own.steps <= MOST_STEPS and 0.0 < own.shift < math.inf and isinstance(options, dict)):
            raise ValueError(
                f"{own.steps} steps, shift {own.shift}, base options {metadata['cldistill.base_options']:.80}"
            )
        if any(map(leads_out, index.base_options.values())):
            raise ValueError(f"its base lies in a folder of another machine: {metadata['cldistill.base_options']:.200}")
        return index
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CollectionError(f"{file}: its header is damaged ({error!r}); export the collection again") from error


def _effects(text: str) -> tuple[CollectionEffect, ...]:
    """Read the effects of a header: names that can be names, each once, and prompts that can be shown."""
    effects = tuple(CollectionEffect(**effect) for effect in parse_json(text))
    for effect in effects:
        if not all(map(is_text, (effect_name(effect.name), effect.trigger, effect.prompt, effect.teacher_prompt))):
            raise ValueError(f"the effect {effect.name!r} has a prompt or trigger which cannot be shown")
    if len({effect.name for effect in effects}) < len(effects):
        raise ValueError("two effects have one name")
    return effects


def sample_path(effect: str) -> str:
    """Return the path of an effect's picture, relative to the card."""
    return f"samples/{file_stem(effect)}.png"
