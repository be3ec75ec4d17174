"""``lora-file``: any key format, at its scale, fitted to the loaded base."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from cldistill.adapters import files
from cldistill.adapters.save import save_adapter
from cldistill.adapters.slots import AdapterSlots
from cldistill.assemble import assemble
from cldistill.errors import AdapterFormatError
from cldistill.manifest.check import check_manifest
from cldistill.protocols import BaseModel, KnowsDigest, TeacherRequest
from cldistill.records import EffectInfo
from cldistill.testing import catalogue_with, random_adapter, write_pairs
from cldistill.testing.runs import tiny_manifest
from cldistill.testing.tiny_base import TinyBase
from cldistill.testing.tiny_base_settings import TinyBaseSettings
from cldistill.training.run import Run
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.collectionlora import plugin
from cldistill_plugins.collectionlora.lora_file import LoraFile, LoraFileSettings, describe_lora_file
from cldistill_plugins.collectionlora.lora_files import LoraFiles, LoraFilesSettings


@dataclass
class Base:
    backbone: nn.Module


@dataclass
class Request:
    """All that the source looks at: the backbone."""

    base: BaseModel
    effect: EffectInfo
    cache: Path


@pytest.fixture
def request_(tmp_path: Path) -> TeacherRequest:
    backbone = nn.ModuleDict({"block": nn.ModuleDict({"to_q": nn.Linear(4, 8), "to_out": nn.Linear(8, 4)})})
    return Request(cast(BaseModel, Base(backbone)), EffectInfo("manga-tone", "turn it"), tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {}
    for name, out, wide in (("block_to_q", 8, 4), ("block_to_out", 4, 8)):
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.ones(2, wide)
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.ones(out, 2)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def settings(path: Path | str, root: Path | None = None, **values: Any) -> LoraFileSettings:
    return LoraFileSettings.model_validate({"path": path, **values}, context={"root": root})


def test_the_adapter_has_the_bases_names_and_the_files_scale(path: Path, request_: TeacherRequest) -> None:
    state = LoraFile(settings(path)).adapter(request_)
    assert state is not None
    assert set(state.modules) == {"block.to_q", "block.to_out"}
    assert {weights.scale for weights in state.modules.values()} == {0.5}
    assert isinstance(state.modules["block.to_q"], LoraWeights)


def test_files_that_name_modules_as_the_familys_trainers_do_can_be_added_up(
    tmp_path: Path, request_: TeacherRequest
) -> None:
    tensors = {"joint.lora_down.weight": torch.ones(2, 4), "joint.lora_up.weight": torch.ones(8, 2)}
    save_file(tensors, tmp_path / "joint.safetensors")
    files = [{"path": str(tmp_path / "joint.safetensors"), "scale": scale} for scale in (1.0, 0.5)]
    source = LoraFiles(LoraFilesSettings.model_validate({"files": files}), {"joint": ("block.to_q",)})
    state = source.adapter(request_)
    assert state is not None
    assert [(name, weights.rank) for name, weights in state.modules.items()] == [("block.to_q", 4)]


def test_scale_multiplies_the_files_own(path: Path, request_: TeacherRequest) -> None:
    plain, strong = (LoraFile(settings(path, scale=scale)).adapter(request_) for scale in (1.0, 1.5))
    assert plain is not None
    assert strong is not None
    assert {weights.scale for weights in strong.modules.values()} == {0.75}
    assert strong.digest != plain.digest


@pytest.mark.parametrize("scales", [(1.0,), (1.5,), (0.5, -1.0)])
def test_the_digest_is_told_without_the_weights(
    scales: tuple[float, ...], path: Path, request_: TeacherRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = LoraFiles(LoraFilesSettings.model_validate({"files": [{"path": path, "scale": s} for s in scales]}))
    sources = (several, *(LoraFile(settings(path, scale=scale)) for scale in scales[:1]))
    states = [source.adapter(request_) for source in sources]
    monkeypatch.setattr(files, "load_fitted", None)
    for source, state in zip(sources, states, strict=True):
        assert isinstance(source, KnowsDigest)
        assert state is not None
        assert source.digest() == state.digest


def test_a_run_whose_targets_are_cached_opens_no_teacher_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects, base = [], TinyBase(TinyBaseSettings())
    for name in ("invert", "soften"):
        teacher = tmp_path / f"{name}.safetensors"
        state = random_adapter(base, name)
        loras = {n: w for n, w in state.modules.items() if isinstance(w, LoraWeights)}
        weights = {f"{n}.lora_A.weight": w.down for n, w in loras.items()} | {
            f"{n}.lora_B.weight": w.up for n, w in loras.items()
        }
        save_adapter(teacher, base, weights, 2, 2.0)
        pairs = str(write_pairs(tmp_path / "pairs" / name))
        part = {"use": "lora-file", "options": {"path": str(teacher)}}
        effects.append({"name": name, "prompt": name, "pairs": pairs, "teacher": part})
    opened: list[str] = []
    load = files.load_fitted

    def counted(fitted: files.FittedAdapter) -> AdapterState:
        opened.append(fitted.header.path.stem)
        return load(fitted)

    monkeypatch.setattr(files, "load_fitted", counted)

    def made(folder: str) -> Run:
        parts = {"effects": effects, "losses": [{"use": "ta-fm"}]}
        (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(tiny_manifest(tmp_path, **parts)))
        checked = check_manifest(str(tmp_path / "manifest.yaml"), catalogue=catalogue_with(plugin))
        return assemble(checked, tmp_path / folder, cache=tmp_path / "cache")

    first = made("first")
    assert opened == ["invert", "soften"]
    again = made("again")
    assert opened == ["invert", "soften"]
    digests = [[run.teachers.digest(name) for name in ("invert", "soften")] for run in (again, first)]
    assert digests[0] == digests[1]
    assert again.teachers.state("soften") is not None
    assert opened[2:] == ["soften"]


def test_a_backbone_that_carries_adapters_has_the_same_modules(path: Path, request_: TeacherRequest) -> None:
    slots = AdapterSlots(request_.base.backbone)
    slots.add("student", ["block.to_q", "block.to_out"], 2, 2.0, torch.Generator())
    state = LoraFile(settings(path)).adapter(request_)
    slots.mount(state)
    assert state is not None
    assert slots.mounted == state.digest


def test_a_file_that_does_not_fit(path: Path, request_: TeacherRequest) -> None:
    save_file({"other.lora_A.weight": torch.ones(2, 4), "other.lora_B.weight": torch.ones(8, 2)}, path)
    with pytest.raises(AdapterFormatError, match="1 of 1 modules are not in the base"):
        LoraFile(settings(path)).adapter(request_)


def test_description_and_settings(path: Path) -> None:
    assert describe_lora_file(settings("teacher.safetensors", path.parent)).adapter == path
    for wrong in ({"scale": 0}, {"strength": 1}):
        with pytest.raises(ValidationError):
            settings(path, **wrong)


@pytest.mark.slow
def test_the_plugin_imports_no_torch() -> None:
    code = "import sys, cldistill_plugins.teachers.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
