"""Every built-in part passes the public kit's check of its kind: here, or in a test of its own where it needs material."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cldistill import testing
from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.catalogue import Catalogue, load_catalogue
from cldistill.component import Kind

torch.set_num_threads(1)
HERE: dict[Kind, dict[str, list[dict[str, Any]]]] = {
    "loss_term": {
        "bs-dmd": [{}, {"real": "frozen"}], "ts-dmd": [{}, {"real": "frozen"}], "fake-score": [{}],
        "ta-fm": [{}, {"sigma": "released"}],
    },
    "stream_router": {
        "pdsr": [{}, {"mixed_until": 20, "redraw_every": 20}, {"p_switch": 1.0, "effect_weights": {"manga": 3.0}}],
    },
    "prompt_isolator": {"aop": [{}, {"template": "{name}: {prompt}"}], "teacher-prompts": [{}]},
    "teacher_source": {"base": [{}], "from-pairs": [{"steps": 2, "rank": 2}]},
    "observer": {"display": [{}], "evaluate": [{}], "run-log": [{}], "sample-grids": [{}], "tensorboard": [{}],
                 "tracker": [{"name": "tensorboard"}]},
    "metric": {"likeness": [{}], "retention": [{}]},
}  # fmt: skip
"""The options with which each part is checked on the kit's own material."""
ELSEWHERE: dict[Kind, dict[str, tuple[str, ...]]] = {
    "base_model": {
        "qwen_image_edit/test_conformance.py": ("qwen-image-edit",),
        "diffusers_base/test_families.py": ("flux2-klein", "flux-kontext"),
    },
    "loss_term": {"incremental/test_recall.py": ("recall",)},
    "stream_router": {"incremental/test_router.py": ("incremental",)},
    "teacher_source": {"incremental/test_collection.py": ("collection",), "test_all_conform.py": ("lora-file", "lora-files")},
    "metric": {
        "effectbench/test_registered_metrics.py": (
            "bcr-oracle", "bleeding", "closeness", "effect-recognition", "hed-vgg-lpips", "high-frequency-energy",
            "truth-distance", "vsa-oracle",
        ),
        "evaluators/test_clip.py": ("clip",), "evaluators/test_dino.py": ("dino",),
        "evaluators/test_dreamsim.py": ("dreamsim",), "evaluators/test_editreward.py": ("editreward",),
        "evaluators/test_judge.py": ("mllm-judge",),
    },
}  # fmt: skip
"""The tests that check the other parts on material of their own."""
CHECKS: dict[Kind, Any] = {
    "loss_term": testing.check_loss_term, "stream_router": testing.check_stream_router,
    "prompt_isolator": testing.check_prompt_isolator, "teacher_source": testing.check_teacher_source,
    "observer": testing.check_observer, "metric": testing.check_metric,
}  # fmt: skip


QUICK = ("stream_router", "prompt_isolator")
"""The kinds whose checks take a moment; a check of another kind takes half a second to two."""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        pytest.param(kind, name, options, id=f"{name}-{number}", marks=() if kind in QUICK else pytest.mark.slow)
        for kind, parts in HERE.items()
        for name, choices in parts.items()
        for number, options in enumerate(choices)
    ],
)
def test_the_part_conforms(catalogue: Catalogue, kind: Kind, name: str, options: dict[str, Any]) -> None:
    if name in ("tensorboard", "tracker"):
        pytest.importorskip("tensorboard")
    # An interpreter of its own for the first options of a part: the others are described by the same modules.
    first = HERE[kind][name][0] is options
    CHECKS[kind](catalogue.get(kind, name).component, options, fresh=first)


@pytest.mark.slow
def test_a_teacher_from_a_file_conforms(catalogue: Catalogue, tmp_path: Path) -> None:
    base = testing.TinyBase()
    slots = AdapterSlots(base.backbone)
    slots.add("student", base.adapter_targets, 2, 2.0, torch.Generator().manual_seed(0))
    testing.randomise_slot(base, slots, "student")
    save_adapter(tmp_path / "teacher.safetensors", base, slots.state("student"), 2, 2.0)
    component = catalogue.get("teacher_source", "lora-file").component
    path = str(tmp_path / "teacher.safetensors")
    testing.check_teacher_source(component, {"path": path})
    several = catalogue.get("teacher_source", "lora-files").component
    testing.check_teacher_source(several, {"files": [{"path": path, "scale": 2.0}, {"path": path, "scale": -0.5}]})


def test_no_built_in_part_is_left_out(catalogue: Catalogue) -> None:
    for kind in ("base_model", *CHECKS):
        elsewhere = [name for names in ELSEWHERE.get(kind, {}).values() for name in names]
        built_in = [
            entry.component.name
            for entry in catalogue
            if entry.component.kind == kind and entry.component.build.__module__.startswith("cldistill_plugins.")
        ]
        assert sorted([*HERE.get(kind, {}), *elsewhere]) == sorted(built_in), kind
        for file in ELSEWHERE.get(kind, {}):
            assert f"check_{kind}(" in (Path(__file__).parent / file).read_text(encoding="utf-8"), file
