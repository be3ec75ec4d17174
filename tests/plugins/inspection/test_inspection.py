"""``inspect``: what an adapter or collection says of itself, and how it lies on a base."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from cldistill.errors import AdapterFormatError, CldistillError
from cldistill.records import BaseDescription
from cldistill_plugins.inspection.description import Inspection, inspect_file, render

MODULES = {f"blocks.{index}.to_{part}": (8, 4) for index in range(3) for part in "qk"}
BASE = BaseDescription(0, MODULES | {"proj_out": (4, 8)}, tuple(MODULES), 16, 64, 32, 3)
COLLECTION = {
    "cldistill.format": "1",
    "cldistill.base": "some/base",
    "cldistill.base_plugin": "tiny",
    "cldistill.base_options": "{}",
    "cldistill.steps": "8",
    "cldistill.shift": "3.0",
    "cldistill.effects": json.dumps(
        [{"name": "manga-tone", "trigger": "vexo", "prompt": "vexo manga [bold] drawing", "teacher_prompt": "turn it"}]
    ),
    "modelspec.title": "two effects",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def save(
        rank: int = 4, alpha: float | None = None, modules: dict[str, tuple[int, int]] = MODULES, **header: str
    ) -> Path:
        tensors = {}
        for name, (out, wide) in modules.items():
            tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.ones(rank, wide)
            tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.ones(out, rank)
            if alpha is not None:
                tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(alpha)
        path = tmp_path / "pytorch_lora_weights.safetensors"
        save_file(tensors, path, header or None)
        return path

    return save


def shown(inspection: Inspection) -> str:
    stream = io.StringIO()
    Console(width=300, file=stream).print(render(inspection))
    return stream.getvalue()


def test_an_adapter_file(write: Callable[..., Path]) -> None:
    path = write(4, 8.0)
    inspection = inspect_file(path)
    record = json.loads(inspection.to_json())
    assert record == {
        "file": str(path), "bytes": path.stat().st_size, "kind": ["lora"],
        "format": "diffusion_model.*.lora_A/B + alpha", "modules": 6, "left_out": 0,
        "ranks": [4], "alphas": [8.0], "scales": [2.0],
        "base": None, "effects": [], "sampler": {}, "problem": "", "header": {},
    }  # fmt: skip
    text = shown(inspection)
    for words in ("LoRA", "diffusion_model.*.lora_A/B + alpha", "rank", "scale"):
        assert words in text


def test_a_file_with_a_number_that_is_not_finite_is_refused(write: Callable[..., Path]) -> None:
    path = write()
    tensors = load_file(path)
    tensors["diffusion_model.blocks.1.to_k.lora_B.weight"][3, 1] = float("nan")
    save_file(tensors, path)
    with pytest.raises(CldistillError, match=r"to_k\.lora_B\.weight' holds NaN or infinity"):
        inspect_file(path)


def test_modules_covered_of_the_base(write: Callable[..., Path]) -> None:
    part = dict(list(MODULES.items())[:4]) | {"proj_out": (4, 8)}
    inspection = inspect_file(write(modules=part), BASE)
    base = json.loads(inspection.to_json())["base"]
    assert (base["fits"], base["covered"], base["total"]) == (True, 5, 5)
    assert (base["covered_targets"], base["targets"], base["base_modules"]) == (4, 6, 7)
    assert "fits: 5/5 modules, scale 1.0; 4 of the base's 6 default modules" in shown(inspection)


def test_a_file_of_another_base_is_described_all_the_same(write: Callable[..., Path]) -> None:
    inspection = inspect_file(
        write(modules={"blocks.0.to_q": (16, 4), "layers.0.wq": (8, 4), "blocks.1.to_k": (8, 4)}), BASE
    )
    base = json.loads(inspection.to_json())["base"]
    assert (base["fits"], base["covered"], base["total"]) == (False, 1, 3)
    assert base["unknown"] == ["layers.0.wq"]
    assert base["mismatched"] == {"blocks.0.to_q": {"file": [16, 4], "base": [8, 4]}}
    text = shown(inspection)
    assert "does not fit: 1/3 modules" in text
    assert "blocks.0.to_q: 16 x 4 in the file, 8 x 4 in the base" in text


def test_a_collection_by_file_and_by_folder(write: Callable[..., Path]) -> None:
    path = write(**COLLECTION)
    for where in (path, path.parent):
        inspection = inspect_file(where)
        record = json.loads(inspection.to_json())
        assert record["effects"][0]["name"] == "manga-tone"
        assert record["effects"][0]["trigger"] == "vexo"
        assert record["sampler"] == {"steps": 8, "shift": 3.0, "integer_timesteps": False, "stochastic": True}
        assert record["header"] == COLLECTION
    text = shown(inspection)
    for words in ("vexo manga [bold] drawing", "8 steps, shift 3", "modelspec.title", "two effects"):
        assert words in text


def test_a_damaged_collection_header_is_told(write: Callable[..., Path]) -> None:
    inspection = inspect_file(write(**COLLECTION | {"cldistill.steps": "many"}))
    assert "header is damaged" in inspection.record["problem"]
    assert "header is damaged" in shown(inspection)


def test_long_header_values_are_cut_only_in_the_table(write: Callable[..., Path]) -> None:
    inspection = inspect_file(write(notes="x" * 1000))
    assert "(+840 characters)" in shown(inspection)
    assert json.loads(inspection.to_json())["header"]["notes"] == "x" * 1000


def test_what_is_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterFormatError, match="no such adapter file"):
        inspect_file(tmp_path / "nothing.safetensors")
