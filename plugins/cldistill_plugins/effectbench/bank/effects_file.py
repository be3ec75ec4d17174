"""The bank as a manifest reads it: ``effects: OUT/effects-50.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from .effect import EffectRecord


def write_effects_file(out: Path, effects: Sequence[EffectRecord]) -> Path:
    """Write ``out/effects-<N>.yaml``: name, prompt and pairs of each effect; teachers are the manifest's business."""
    listed = [{"name": effect.name, "prompt": effect.prompt, "pairs": effect.name} for effect in effects]
    path = out / f"effects-{len(effects)}.yaml"
    path.write_text(yaml.safe_dump(listed, sort_keys=False, width=120), encoding="utf-8")
    return path
