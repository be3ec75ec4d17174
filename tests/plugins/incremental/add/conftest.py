"""A collection of two effects on the kit's base, by the whole method, with its run around it; and the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cldistill.adapters.save import save_adapter
from cldistill.cli import main as cli
from cldistill.testing import (
    TinyBase,
    TinyBaseSettings,
    plugin_environment,
    random_adapter,
    write_general,
    write_pairs,
    write_pictures,
)

torch.set_num_threads(1)

OLD = ("invert", "soften")
PAIRS_TEACHER = {"use": "from-pairs", "options": {"steps": 2, "rank": 2, "lr": 1e-3}}


@dataclass(frozen=True)
class World:
    """A folder: ``data/``, ``teachers/``, ``run/`` with its ``collection/``, and ``new/`` with pairs to be added."""

    root: Path

    @property
    def collection(self) -> Path:
        return self.root / "run" / "collection"

    def add(self, *arguments: str | Path, code: int = 0) -> str:
        """Run ``cldistill add`` on the collection, without measuring; return what it printed."""
        return invoke("add", self.collection, *arguments, "--no-measure", code=code)

    def effects(self, folder: str = "run") -> list[dict[str, str]]:
        listing = json.loads((self.root / folder / "collection/effects.json").read_text())
        found: list[dict[str, str]] = listing["effects"]
        return found


def invoke(*arguments: str | Path, code: int = 0) -> str:
    """Run the command line; a user error's text comes back as `main` would print it."""
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    text = f"{done.output}{done.exception or ''}"
    assert done.exit_code == code, text
    return text


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for those of the cache."""
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (folder / path).read_bytes() for path in files if path.parts[0] != "cache"}


def manifest(root: Path) -> dict[str, Any]:
    """Return the manifest of the old run: the method's own parts on the kit's base."""
    effects = [
        {
            "name": name, "prompt": f"{name} it", "pairs": str(write_pairs(root / "data" / name, 3, seed=seed)),
            "teacher": {"use": "lora-file", "options": {"path": str(root / "teachers" / f"{name}.safetensors")}},
        }
        for seed, name in enumerate(OLD)
    ]  # fmt: skip
    general = write_general(root / "data" / "general", 3)
    write_pictures(root / "data/held-out", 3)
    (root / "data/held-out/general.jsonl").write_text('{"image": "001.png", "instruction": "turn it grey"}\n')
    return {
        "cldistill": 1, "name": "two", "base": {"use": "tiny-base"}, "effects": effects,
        "general": {"images": str(root / "data/general"), "instructions": str(general)},
        "router": {"use": "pdsr", "options": {"p_switch": 0.5, "mixed_until": 2}},
        "prompts": {"use": "aop", "options": {"captions": {"invert": "its colours,  turned"}}},
        "losses": [
            {"use": "ta-fm", "streams": ["mixed", "effect"]},
            {"use": "bs-dmd", "streams": ["effect", "general"], "from_step": 2},
            {"use": "ts-dmd", "streams": ["effect"], "from_step": 2},
            {"use": "fake-score", "from_step": 2},
        ],
        "slots": {
            "student": {"rank": 2, "lr": [{"lr": 1e-2, "end_lr": 1e-3}, {"from_step": 2, "lr": 2e-3}], "ema": 0.9},
            "critic": {"rank": 2, "lr": 1e-3, "updates": 2, "from_step": 2, "init": "slot:student", "reuse_sample": True},
        },
        "sampler": {"steps": 4}, "targets": {"from": "teacher", "steps": 3},
        "train": {"generator_steps": 5, "batch_size": 2, "checkpoint_every": 5, "device": "cpu", "seed": 3,
                  "gradient_checkpointing": False},
        "samples": {"every": 5, "images": str(root / "data/held-out")},
        "evaluate": {
            "images": str(root / "data/held-out"), "pictures": 3, "teacher_steps": 2, "metrics": [{"use": "brightness"}],
            "general": str(root / "data/held-out/general.jsonl"), "systems": [{"name": "base", "adapter": None}],
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def installed() -> Iterator[None]:
    """Let the command line find the kit's base and a metric, as if their plugins were installed."""
    with plugin_environment({"brightness": "brightness_metric"}, [Path(__file__).parent / "plugin"]):
        yield


@pytest.fixture(scope="session")
def template(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world, made once; its paths lie in this folder, so tests that delete something work on `world`."""
    root = tmp_path_factory.mktemp("template")
    base = TinyBase(TinyBaseSettings())
    for name in OLD:
        adapter = random_adapter(base, name)
        weights = {
            f"{m}.lora_{k}.weight": t for m, w in adapter.modules.items() for k, t in (("A", w.down), ("B", w.up))
        }
        save_adapter(root / "teachers" / f"{name}.safetensors", base, weights, 2, 2.0)
    (root / "manifest.yaml").write_text(yaml.safe_dump(manifest(root), sort_keys=False))
    before = os.environ.get("CLDISTILL_CACHE")
    os.environ["CLDISTILL_CACHE"] = str(root / "cache")
    try:
        invoke("run", root / "manifest.yaml", "--output", root / "run")
    finally:
        os.environ.pop("CLDISTILL_CACHE")
        if before is not None:
            os.environ["CLDISTILL_CACHE"] = before
    folder = write_pairs(root / "new/gilded frame", 3, seed=7)
    (folder / "effect.json").write_text(json.dumps({"name": "gilded", "prompt": "put it in a gilded frame"}))
    return root


@pytest.fixture
def world(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of the world, whose own paths its manifest names."""
    root = tmp_path / "world"
    shutil.copytree(template, root, ignore=shutil.ignore_patterns("cache"))
    resolved = root / "run/manifest.resolved.yaml"
    resolved.write_text(resolved.read_text().replace(str(template), str(root)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return World(root)


@pytest.fixture
def quick() -> Callable[[str], tuple[str, str]]:
    """Options that train a new effect's teacher in two steps."""
    return lambda name: ("--set", f"effects.{name}.teacher={json.dumps(PAIRS_TEACHER)}")
