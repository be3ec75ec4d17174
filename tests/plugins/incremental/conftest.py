"""A small collection, exported on the kit's base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cldistill.adapters.slots import AdapterSlots
from cldistill.collection.export import export_collection
from cldistill.collection.round_trip import fixed_probe
from cldistill.records import EffectInfo, Prompts
from cldistill.schedule import Schedule
from cldistill.storage.tensors import TensorCache
from cldistill.testing import TinyBase, randomise_slot

MANIFEST = """\
# Resolved by cldistill; plugins:
#   cldistill 0.1.0
cldistill: 1
name: two effects
effects:
- name: manga-tone
  prompt: turn the picture into manga
  teacher:
    use: collection
    options:
      path: older
      effect: manga-tone
- name: gold-frame
  prompt: add a gold frame
router:
  use: pdsr
  options:
    effect_weights:
      manga-tone: 2.0
prompts:
  use: aop
  options:
    captions:
      manga-tone: manga drawing with screen tone
    template: '{prompt}'
samples:
  images: held-out
  effects:
  - manga-tone
  - gold-frame
"""


EFFECTS = (EffectInfo("manga-tone", "turn the picture into manga"), EffectInfo("gold-frame", "add a gold frame"))
PROMPTS = {
    "manga-tone": Prompts("vexo manga drawing with screen tone", "turn the picture into manga", "", "vexo"),
    "gold-frame": Prompts("kuli gold frame | around the picture.", "add a gold frame", "", "kuli"),
}


@pytest.fixture
def export() -> Callable[..., Path]:
    """Export a collection of `EFFECTS` on the kit's base with random weights."""
    return _export


def _export(folder: Path, **changes: Any) -> Path:
    base = TinyBase()
    slots = AdapterSlots(base.backbone)
    slots.add("student", base.adapter_targets, 2, 2.0, torch.Generator().manual_seed(0))
    randomise_slot(base, slots, "student", 1)
    given: dict[str, Any] = {
        "base": base, "slots": slots, "slot": "student", "weights": slots.state("student"),
        "weights_kind": "ema", "effects": EFFECTS, "prompts": PROMPTS, "schedule": Schedule(8, 3.0), "title": "two effects",
        "resolved_manifest": MANIFEST, "base_part": ("tiny-base", {}), "manifest_digest": "c3", "steps": 12,
        "teacher_digests": {"manga-tone": "a1", "gold-frame": "b2"},
        "probe": fixed_probe(base, "any", TensorCache(folder.with_name("probe"))),
    }  # fmt: skip
    return export_collection(folder, **(given | changes))


@pytest.fixture
def manifest() -> str:
    """The resolved manifest that lies in the collection."""
    return MANIFEST
