"""The collection on disk: one LoRA that stock diffusers and ComfyUI load, and everything one needs to use it.

Written aside, checked by reading it back, and only then given its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cldistill.adapters.save import save_adapter
from cldistill.collection.card import Card, DescribesUsage, Usage, UsageRequest
from cldistill.collection.index import FORMAT, WEIGHTS, CollectionEffect, effects_json
from cldistill.collection.round_trip import Probe, check_round_trip, fixed_probe
from cldistill.errors import CollectionError
from cldistill.records import EffectInfo, Prompts
from cldistill.schedule import Schedule, unshift_sigma
from cldistill.storage.files import sha256_file, write_aside

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill.adapters.slots import AdapterSlots
    from cldistill.protocols import BaseModel

SAMPLE_SIDE = 512
"""Longest side of a picture in the card: fifty at 1024 x 1024 would weigh as much as a small adapter."""


@dataclass(frozen=True)
class _Export:
    base: BaseModel
    weights: Mapping[str, Tensor]
    rank: int
    effects: tuple[CollectionEffect, ...]
    schedule: Schedule
    title: str
    header: Mapping[str, str]
    dtype: torch.dtype


def export_collection(
    folder: Path, *, base: BaseModel, slots: AdapterSlots, slot: str, weights: Mapping[str, Tensor], rank: int,
    alpha: float, weights_kind: str, effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts], schedule: Schedule,
    title: str, resolved_manifest: str, base_part: tuple[str, Mapping[str, Any]], teacher_digests: Mapping[str, str],
    manifest_digest: str, steps: int, dtype: torch.dtype | None = None, probe: Probe | None = None,
    samples: Mapping[str, Image] | None = None,
) -> Path:  # fmt: skip
    """Write the collection to ``folder`` and return it.

    Args:
        slots: Where ``slot`` holds ``weights`` now; its ``teacher`` slot is emptied, for the file to be mounted in.
        weights: ``<module>.lora_A.weight`` ``[r, in]`` and ``<module>.lora_B.weight`` ``[out, r]``.
        weights_kind: ``ema`` or ``raw``, for the header.
        base_part: Name and options of the base in the manifest; a base that exports its own options is believed first.
        steps: Generator steps that made the weights.
        dtype: Of the file; by default bf16 where the backbone is in half precision, else fp32.
        probe: Fixed input for the comparison; by default a gradient picture with the first effect's prompt, which needs
            the base's encoders.
        samples: Effect -> a picture that shows it, kept as ``samples/<effect>.png`` (at most `SAMPLE_SIDE` wide and high)
            and shown in the card's table; effects without one have none there.

    Raises:
        CollectionError: the file read back does not give what the slot gives, or a sample is of no effect; nothing is
            written then.
    """
    strangers = sorted((samples or {}).keys() - {effect.name for effect in effects})
    if strangers:
        raise CollectionError(f"samples of {strangers[0]!r}, which the collection does not hold")
    entries = tuple(_entry(effect, prompts[effect.name]) for effect in effects)
    facts = {
        "cldistill.weights": weights_kind, "cldistill.generator_steps": str(steps),
        "cldistill.teachers": json.dumps(teacher_digests, sort_keys=True),
        "cldistill.manifest_sha256": manifest_digest,
    }  # fmt: skip
    export = _Export(
        base=base, weights=bake_alpha(weights, rank, alpha), rank=rank, effects=entries, schedule=schedule, title=title,
        header=header(base, base_part, entries, schedule, title, rank) | facts, dtype=dtype or default_dtype(base),
    )  # fmt: skip
    with write_aside(folder) as partial:
        save_adapter(partial / WEIGHTS, base, export.weights, rank, float(rank), export.header, export.dtype)
        check_round_trip(partial / WEIGHTS, base, slots, slot, probe or fixed_probe(base, entries[0].prompt))
        _write_texts(partial, export, resolved_manifest, samples or {})
    return folder


def _entry(effect: EffectInfo, prompts: Prompts) -> CollectionEffect:
    # The prompt of the effect's first teacher stays on record, also where a collection now teaches the effect.
    return CollectionEffect(effect.name, prompts.trigger, prompts.student, effect.prompt)


def default_dtype(base: BaseModel) -> torch.dtype:
    """Return bf16 for a base in half precision, else fp32."""
    frozen = next(base.backbone.parameters()).dtype
    return torch.float32 if frozen == torch.float32 else torch.bfloat16


def bake_alpha(weights: Mapping[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """Fold ``alpha / rank`` into B: with alpha = r also programs that ignore alpha get the right scale."""
    factor = alpha / rank
    return {
        name: value.detach().float() * (factor if name.endswith(".lora_B.weight") else 1.0)
        for name, value in weights.items()
    }


def header(
    base: BaseModel, base_part: tuple[str, Mapping[str, Any]], effects: Sequence[CollectionEffect], schedule: Schedule,
    title: str, rank: int,
) -> dict[str, str]:  # fmt: skip
    """Return the file's string header: ``modelspec.*`` for other programs, ``cldistill.*`` for `Collection`."""
    name, options = base_part
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": title,
        "modelspec.trigger_phrase": ", ".join(effect.trigger for effect in effects if effect.trigger),
        "modelspec.usage_hint": (
            f"{schedule.steps} steps, shift {schedule.shift:g}, stochastic sampling, no guidance; one trigger a prompt"
        ),
        "modelspec.merged_from": ", ".join(effect.name for effect in effects),
        "modelspec.resolution": f"{base.resolution}x{base.resolution}",
        "modelspec.prediction_type": "velocity",
        "cldistill.format": FORMAT,
        "cldistill.base": name,
        "cldistill.base_plugin": name,
        "cldistill.base_fingerprint": base.fingerprint,
        "cldistill.base_options": json.dumps(portable(options), sort_keys=True),
        "cldistill.effects": json.dumps(effects_json(effects), ensure_ascii=False),
        "cldistill.steps": str(schedule.steps),
        "cldistill.shift": repr(schedule.shift),
        "cldistill.integer_timesteps": str(schedule.integer_timesteps).lower(),
        "cldistill.sampler": "consistency",
        "cldistill.rank": str(rank),
        **base.export_metadata(),
    }


def portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out absolute paths, which mean nothing on another machine and tell of this one."""
    return {
        name: value for name, value in options.items() if not (isinstance(value, str) and Path(value).is_absolute())
    }


def scheduler_config(schedule: Schedule) -> dict[str, Any]:
    """Return diffusers' scheduler config: all four settings, for ``shift`` alone is ignored under dynamic shifting."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": schedule.shift,
        "use_dynamic_shifting": False,
        "shift_terminal": None,
        "stochastic_sampling": True,
    }


def pipeline_sigmas(schedule: Schedule) -> tuple[float, ...] | None:
    """Return sigmas for a stock pipeline where its own, shifted, are not the schedule's (integer timesteps)."""
    if not schedule.integer_timesteps:
        return None
    return tuple(round(value, 9) for value in unshift_sigma(schedule.sigmas().double(), schedule.shift).tolist())


def _usage(export: _Export) -> Usage | None:
    base, schedule = export.base, export.schedule
    if not isinstance(base, DescribesUsage):
        return None
    request = UsageRequest(export.effects[0].prompt, schedule.steps, schedule.shift, pipeline_sigmas(schedule))
    return base.usage(request)


def _write_texts(folder: Path, export: _Export, resolved_manifest: str, samples: Mapping[str, Image]) -> None:
    names = _write_samples(folder, samples)
    digest = sha256_file(folder / WEIGHTS)
    card = Card(export.title, export.effects, export.header, export.schedule.steps, _usage(export), names)
    effects = {
        "format": int(FORMAT), "title": export.title, "base": export.header["cldistill.base"], "weights_sha256": digest,
        "sampler": {"steps": export.schedule.steps, "shift": export.schedule.shift},
        "effects": effects_json(export.effects),
    }  # fmt: skip
    _write(folder / "README.md", card.text())
    _write(folder / "effects.json", json.dumps(effects, indent=2, ensure_ascii=False) + "\n")
    _write(folder / "scheduler_config.json", json.dumps(scheduler_config(export.schedule), indent=2) + "\n")
    _write(folder / "manifest.resolved.yaml", resolved_manifest)


def _write_samples(folder: Path, samples: Mapping[str, Image]) -> dict[str, str]:
    """Write the card's pictures; return effect -> path relative to the card."""
    names = {effect: f"samples/{effect}.png" for effect in samples}
    if names:
        (folder / "samples").mkdir()
    for effect, picture in samples.items():
        small = picture.convert("RGB")  # a copy: the caller keeps his picture
        small.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        small.save(folder / names[effect])
    return names


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
