"""One tiny base, a student slot with random weights, and the collection exported from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cldistill.adapters.slots import AdapterSlots
from cldistill.collection.export import export_collection
from cldistill.collection.round_trip import FixedProbe, fixed_probe
from cldistill.records import EffectInfo, Prompts
from cldistill.schedule import Schedule
from cldistill.storage.tensors import TensorCache
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, tiny_pipeline
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings

torch.set_num_threads(1)

EFFECTS = (EffectInfo("manga-tone", "turn the picture into manga"), EffectInfo("gold-frame", "add a gold frame"))
PROMPTS = {
    "manga-tone": Prompts("vexo manga drawing with screen tone", "turn the picture into manga", "", "vexo"),
    "gold-frame": Prompts("kuli gold frame | around the picture.", "add a gold frame", "", "kuli"),
}


@dataclass
class Made:
    """A run's end: base, slots, and what is to be exported."""

    base: QwenImageEdit
    slots: AdapterSlots

    def probe(self) -> FixedProbe:
        with TemporaryDirectory() as cache:
            return fixed_probe(self.base, PROMPTS["manga-tone"].student, TensorCache(Path(cache)))

    def export(self, folder: Path, **changes: Any) -> Path:
        given: dict[str, Any] = {
            "base": self.base, "slots": self.slots, "slot": "student", "weights": self.slots.state("student"),
            "weights_kind": "ema", "effects": EFFECTS, "prompts": PROMPTS,
            "schedule": Schedule(8, 3.0), "title": "two effects", "resolved_manifest": "cldistill: 1\n",
            "base_part": ("qwen-image-edit", {}), "teacher_digests": {"manga-tone": "a1", "gold-frame": "b2"},
            "manifest_digest": "c3", "steps": 12,
        }  # fmt: skip
        return export_collection(folder, **({"probe": changes.get("probe") or self.probe()} | given | changes))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def make(pipeline: Path) -> Callable[..., Made]:
    def build(rank: int = 4, alpha: float = 4.0, **options: Any) -> Made:
        settings = QwenImageEditSettings.model_validate(
            {
                "model": str(pipeline),
                "resolution": TINY_RESOLUTION,
                "vl_resolution": TINY_VL_RESOLUTION,
                "dtype": "float32",
            }
            | options
        )
        base = QwenImageEdit(settings)
        slots = AdapterSlots(base.backbone)
        generator = torch.Generator().manual_seed(0)
        slots.add("student", base.adapter_targets, rank, alpha, generator)
        slots.load(
            "student",
            {n: torch.randn(p.shape, generator=generator) * 0.4 for n, p in slots.parameters("student").items()},
        )
        return Made(base, slots)

    return build


@pytest.fixture(scope="session")
def exported_once(make: Callable[..., Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make().export(tmp_path_factory.mktemp("exported") / "collection")


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A copy of the collection, which a test may change."""
    return shutil.copytree(exported_once, tmp_path / "collection")


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC)
