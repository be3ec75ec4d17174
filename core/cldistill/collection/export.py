"""The collection on disk: one LoRA that stock diffusers and ComfyUI load, and everything one needs to use it.

Written aside, checked by reading it back, and only then given its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cldistill.adapters.save import save_adapter
from cldistill.collection.card import Card, UsageRequest
from cldistill.collection.index import FORMAT, WEIGHTS, CollectionEffect, effects_json, sample_path
from cldistill.collection.round_trip import FixedProbe, check_round_trip
from cldistill.records import EffectInfo, Prompts
from cldistill.schedule import Schedule, unshift_sigma
from cldistill.storage.files import sha256_file, write_aside

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill.adapters.slots import AdapterSlots
    from cldistill.protocols import BaseModel

SAMPLE_SIDE = 512
"""Longest side of a picture in the card: fifty at 1024 x 1024 would weigh as much as a small adapter."""


def export_collection(
    folder: Path, *, base: BaseModel, slots: AdapterSlots, slot: str, weights: Mapping[str, Tensor], weights_kind: str,
    effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts], schedule: Schedule, title: str,
    resolved_manifest: str, base_part: tuple[str, Mapping[str, Any]], teacher_digests: Mapping[str, str],
    manifest_digest: str, steps: int, probe: FixedProbe, samples: Mapping[str, Image] | None = None,
) -> Path:  # fmt: skip
    """Write the collection to ``folder`` and return it.

    Args:
        slots: Where ``slot`` holds ``weights`` now; its ``teacher`` slot is emptied, for the file to be mounted in.
        weights: ``<module>.lora_A.weight`` ``[r, in]`` and ``<module>.lora_B.weight`` ``[out, r]``.
        weights_kind: ``ema`` or ``raw``, for the header.
        base_part: Name and options of the base in the manifest; a base that exports its own options is believed first.
        steps: Generator steps that made the weights.
        probe: Fixed input on which the file that was written is compared with the slot.
        samples: Effect -> a picture that shows it, kept at `sample_path` (at most `SAMPLE_SIDE` wide and high)
            and shown in the card's table; effects without one have none there.

    Raises:
        CollectionError: the file read back does not give what the slot gives; nothing is written then.
    """
    # The prompt of the effect's first teacher stays on record, also where a collection now teaches the effect.
    entries = tuple(
        CollectionEffect(e.name, prompts[e.name].trigger, prompts[e.name].student, e.prompt) for e in effects
    )
    rank, samples = slots.rank(slot), samples or {}
    how = f"{'stochastic' if schedule.stochastic else 'Euler'} sampling, no guidance; one trigger a prompt"
    header = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": title,
        "modelspec.trigger_phrase": ", ".join(effect.trigger for effect in entries if effect.trigger),
        "modelspec.usage_hint": f"{schedule.steps} steps, shift {schedule.shift:g}, {how}",
        "modelspec.merged_from": ", ".join(effect.name for effect in entries),
        "modelspec.resolution": f"{base.resolution}x{base.resolution}",
        "modelspec.prediction_type": "velocity",
        "cldistill.format": FORMAT,
        "cldistill.base": base_part[0],
        "cldistill.base_plugin": base_part[0],
        "cldistill.base_fingerprint": base.fingerprint,
        "cldistill.base_options": json.dumps(portable(base_part[1]), sort_keys=True),
        "cldistill.effects": json.dumps(effects_json(entries), ensure_ascii=False),
        "cldistill.steps": str(schedule.steps),
        "cldistill.shift": repr(schedule.shift),
        "cldistill.integer_timesteps": str(schedule.integer_timesteps).lower(),
        "cldistill.sampler": "consistency" if schedule.stochastic else "euler",
        "cldistill.rank": str(rank),
        **base.export_metadata(),
        "cldistill.weights": weights_kind,
        "cldistill.generator_steps": str(steps),
        "cldistill.teachers": json.dumps(teacher_digests, sort_keys=True),
        "cldistill.manifest_sha256": manifest_digest,
    }
    with write_aside(folder) as partial:
        file = partial / WEIGHTS
        baked = bake_alpha(weights, rank, slots.alpha(slot))
        save_adapter(file, base, baked, rank, float(rank), header, default_dtype(base))
        check_round_trip(file, base, slots, slot, probe)
        _write_samples(partial, samples)
        listing = {
            "format": int(FORMAT), "title": title, "base": header["cldistill.base"], "weights_sha256": sha256_file(file),
            "sampler": {"steps": schedule.steps, "shift": schedule.shift, "stochastic": schedule.stochastic},
            "effects": effects_json(entries),
        }  # fmt: skip
        asked = UsageRequest(entries[0].prompt, schedule, pipeline_sigmas(schedule))
        shown = {effect: sample_path(effect) for effect in samples}
        texts = {
            "README.md": Card(title, entries, header, schedule.steps, base.usage(asked), shown).text(),
            "effects.json": json.dumps(listing, indent=2, ensure_ascii=False) + "\n",
            "scheduler_config.json": json.dumps(scheduler_config(schedule), indent=2) + "\n",
            "manifest.resolved.yaml": resolved_manifest,
        }
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
    return folder


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
        "stochastic_sampling": schedule.stochastic,
    }


def pipeline_sigmas(schedule: Schedule) -> tuple[float, ...] | None:
    """Return sigmas for a stock pipeline where its own, shifted, are not the schedule's (integer timesteps)."""
    if not schedule.integer_timesteps:
        return None
    return tuple(round(value, 9) for value in unshift_sigma(schedule.sigmas().double(), schedule.shift).tolist())


def _write_samples(folder: Path, samples: Mapping[str, Image]) -> None:
    """Write the card's pictures."""
    for effect, picture in samples.items():
        path = folder / sample_path(effect)
        path.parent.mkdir(exist_ok=True)
        small = picture.convert("RGB")  # a copy: the caller keeps his picture
        small.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        small.save(path)
