"""A small evaluation on the kit's base: two effects, adapters and collections written to files, metrics of the test's own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor

from cldistill.adapters.save import save_adapter
from cldistill.collection.index import WEIGHTS
from cldistill.component import AnyComponent, BuildContext, Needs, Settings, metric
from cldistill.manifest.check import check_manifest
from cldistill.protocols import MetricRequest
from cldistill.records import Column, MetricValues
from cldistill.testing.adapters import random_adapter
from cldistill.testing.environment import catalogue_with
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import tiny_manifest
from cldistill.testing.tiny_base import TinyBase
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.evaluation.check import enter
from cldistill_plugins.evaluation.evaluate import Evaluated, evaluate_manifest
from cldistill_plugins.sharding.api import WHOLE, Shard

torch.set_num_threads(1)

BASE = TinyBase()


class NoOptions(Settings):
    """A metric without options."""


def brightness(shown: Any) -> float:
    """Mean of all pixels, 0 to 1."""
    return float(np.asarray(shown).mean()) / 255


class Brightness:
    """``brightness``, and how often and for what it was asked."""

    columns = {"brightness": Column("brightness", "lower")}  # noqa: RUF012

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every picture."""
        self.asked.append({system: list(pools) for system, pools in request.outputs.items()})
        return {
            system: {pool: MetricValues({"brightness": [brightness(p) for p in made]}) for pool, made in pools.items()}
            for system, pools in request.outputs.items()
        }


@dataclass
class Desk:
    """A folder with a manifest that can be evaluated."""

    root: Path
    components: list[AnyComponent] = field(default_factory=list)
    brightness: list[Brightness] = field(default_factory=list)
    """The metric ``brightness`` of each evaluation so far."""
    text: str = ""
    """What the last evaluation printed."""

    def metric(self, name: str, build: Callable[[BuildContext], Any], needs: Needs | None = None) -> None:
        """Add a metric that a manifest can ask for."""
        describe = lambda settings: needs or Needs()  # noqa: E731
        self.components.append(metric(name, "a test's", NoOptions, describe, lambda settings, context: build(context)))

    def new_brightness(self, context: BuildContext) -> Brightness:
        """Build that metric."""
        self.brightness.append(Brightness())
        return self.brightness[-1]

    def lora(self, name: str, *key: str | int, rank: int = 2) -> AdapterState:
        """Write a plain adapter file ``<name>.safetensors`` and return its weights."""
        state = random_adapter(BASE, name, *key, rank=rank)
        self.save(self.root / f"{name}.safetensors", state)
        return state

    def save(self, path: Path, state: AdapterState, header: Mapping[str, str] | None = None) -> None:
        """Write an adapter."""
        weights: dict[str, Tensor] = {}
        for name, module in state.modules.items():
            assert isinstance(module, LoraWeights)
            weights[f"{name}.lora_A.weight"], weights[f"{name}.lora_B.weight"] = module.down, module.up
        rank = next(iter(state.modules.values())).rank
        save_adapter(path, BASE, weights, rank, float(rank), header)

    def collection(self, name: str, prompts: Mapping[str, tuple[str, str]], steps: int = 3, **header: str) -> Path:
        """Write a collection of effects (name -> trigger and prompt) and return its folder."""
        effects = [{"name": effect, "trigger": t, "prompt": p} for effect, (t, p) in prompts.items()]
        told = {
            "cldistill.format": "1", "cldistill.effects": json.dumps(effects), "cldistill.steps": str(steps),
            "cldistill.shift": "2.0", "cldistill.base": "tiny-base", "cldistill.base_plugin": "tiny-base",
            "cldistill.base_options": "{}", "cldistill.base_fingerprint": BASE.fingerprint,
        }  # fmt: skip
        self.save(self.root / name / WEIGHTS, random_adapter(BASE, name), {**told, **header})
        return self.root / name

    def evaluate(
        self, *systems: Mapping[str, Any], output: str = "out", metrics: Sequence[str] = ("brightness",), pictures: int = 2,
        skip_missing: bool = False, general: bool = True, shard: Shard = WHOLE, parts: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Evaluated:  # fmt: skip
        """Evaluate ``systems`` with the components that were added; ``parts`` replaces top-level keys of the manifest."""
        images = write_pictures(self.root / "held-out", 3)
        told: dict[str, Any] = {"images": str(images), "pictures": pictures, "teacher_steps": 4, **more}
        told |= {"metrics": [{"use": name} for name in metrics], "systems": [dict(s) for s in systems]}
        told |= {"general": str(self.root / "data" / "general" / "told.jsonl")} if general else {}
        data = tiny_manifest(self.root, evaluate=told, **(parts or {}))
        lines = (self.root / "data" / "general.jsonl").read_text().splitlines()[:2]
        (self.root / "data" / "general" / "told.jsonl").write_text("\n".join(lines) + "\n")
        file, output_file = self.root / "eval.yaml", io.StringIO()
        file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
        checked = check_manifest(str(file), catalogue=catalogue_with(*self.components), measuring=True)
        entry = enter(checked, skip_missing=skip_missing)
        console = Console(file=output_file, width=120)
        done = evaluate_manifest(
            checked, entry, self.root / output, console, "cldistill eval", "cldistill eval eval.yaml", shard
        )
        self.text = output_file.getvalue()
        return done

    def report(self, output: str = "out") -> dict[str, Any]:
        """Read what came out."""
        return dict(json.loads((self.root / output / "report.json").read_text()))

    def pixels(self, system: str, pool: str, key: str = "000", output: str = "out") -> Any:
        """Read one picture."""
        from PIL import Image

        path = self.root / output / "pictures" / system / pool / f"{key}.webp"
        return np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk with the metric ``brightness``."""
    found = Desk(tmp_path)
    found.metric("brightness", found.new_brightness)
    return found
