"""Shared fixtures: a tiny pipeline of the real classes, and a whole run of two effects on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random Qwen-Image-Edit pipeline below a megabyte."""
    from cldistill.testing.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``darker/`` and ``mirror/`` with four pairs each, ``general/`` with four pictures, and ``general.jsonl``."""
    from PIL import Image

    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for folder in ("darker/source", "darker/target", "mirror/source", "mirror/target", "general"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        blocks = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        picture = np.kron(blocks, np.ones((16, 16, 1), dtype=np.uint8))
        for effect, after in (("darker", picture // 2), ("mirror", picture[:, ::-1])):
            Image.fromarray(picture).save(root / effect / "source" / f"{index}.png")
            Image.fromarray(np.ascontiguousarray(after)).save(root / effect / "target" / f"{index}.png")
        Image.fromarray(255 - picture).save(root / "general" / f"{index}.png")
    lines = [f'{{"image": "{index}.png", "instruction": "make it brighter"}}' for index in range(4)]
    (root / "general.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def tiny_manifest(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> Callable[..., Path]:
    """Write a manifest of the whole method at the smallest size; keyword arguments replace top-level parts."""

    def write(file: str = "manifest.yaml", **parts: Any) -> Path:
        pairs = {"use": "from-pairs", "options": {"steps": 3, "rank": 2, "lr": 1e-3}}
        manifest: dict[str, Any] = {
            "cldistill": 1,
            "name": "tiny",
            "base": {
                "use": "qwen-image-edit",
                "options": {
                    "model": str(tiny_model), "resolution": 64, "vl_resolution": 56, "dtype": "float32",
                    "guidance_scale": 1.0, "target_guidance_scale": 1.0,
                },
            },
            "effects": [
                {"name": "darker", "prompt": "make it darker", "teacher": pairs, "pairs": str(tiny_data / "darker")},
                {"name": "mirror", "prompt": "mirror it", "teacher": pairs, "pairs": str(tiny_data / "mirror")},
            ],
            "general": {"images": str(tiny_data / "general"), "instructions": str(tiny_data / "general.jsonl")},
            "router": {"use": "pdsr", "options": {"p_switch": 0.5, "mixed_until": 2}},
            "prompts": {"use": "aop"},
            "losses": [
                {"use": "bs-dmd", "streams": ["effect", "general"], "from_step": 2},
                {"use": "ts-dmd", "streams": ["effect"], "from_step": 2},
                {"use": "ta-fm", "streams": ["effect", "mixed"]},
                {"use": "fake-score"},
            ],
            "slots": {
                "student": {"rank": 2, "lr": 1e-3, "ema": 0.9},
                "critic": {"rank": 2, "lr": 1e-3, "updates": 2, "from_step": 2, "init": "slot:student", "reuse_sample": True},
            },
            "sampler": {"steps": 4, "shift": 3.0},
            "targets": {"from": "teacher", "steps": 3},
            "train": {"generator_steps": 6, "batch_size": 2, "checkpoint_every": 2, "seed": 1, "device": "cpu"},
        }  # fmt: skip
        manifest.update(parts)
        path = tmp_path / file
        kept = {key: value for key, value in manifest.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return write


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test's cache to itself."""
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
