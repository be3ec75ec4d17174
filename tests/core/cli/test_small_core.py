"""What is left without the plugins that contribute commands: check, plan, run, inspect and generate, with LoRAs that exist."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from typer.testing import CliRunner

from cldistill.adapters.inject import linear_shapes
from cldistill.cli.main import app
from cldistill.testing import picture, plugin_environment
from cldistill.testing.runs import tiny_manifest
from cldistill.testing.tiny_base import TinyBase

DISABLED = "evaluation,incremental,deployment,teachers,instructions"
CORE = ("run", "check", "plan", "generate", "inspect", "plugins", "schema")
CONTRIBUTED = ("eval", "report", "study", "add", "remove", "rename", "group", "teachers", "instructions")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Leave the contributing plugins out, and let the kit's base be found."""
    monkeypatch.setenv("CLDISTILL_DISABLE_PLUGINS", DISABLED)
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    with plugin_environment({}):
        yield


def lora(path: Path) -> Path:
    """Write a LoRA of rank 2 for the kit's base."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(sum(path.name.encode()))
    weights = {}
    for module, (out, inner) in linear_shapes(TinyBase().backbone).items():
        weights[f"transformer.{module}.lora_A.weight"] = torch.randn(2, inner, generator=generator) / 4
        weights[f"transformer.{module}.lora_B.weight"] = torch.randn(out, 2, generator=generator) / 4
    save_file(weights, path)
    return path


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Run a command as it is typed, and return what it prints."""
    monkeypatch.setattr(sys, "argv", ["cldistill", *words])
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def taught_by_files(folder: Path, names: Sequence[str] = ("invert", "soften")) -> Path:
    """Write a manifest whose effects' LoRAs exist."""
    data = tiny_manifest(folder, steps=2)
    for effect in data["effects"]:
        path = lora(folder / "teachers" / f"{effect['name']}.safetensors")
        effect["teacher"] = {"use": "lora-file", "options": {"path": str(path)}}
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    return file


def test_help_lists_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {line.strip("│ ").split(" ")[0] for line in call(monkeypatch, "--help").splitlines()}
    assert words.issuperset(CORE) and not words & set(CONTRIBUTED)


@pytest.mark.slow
def test_the_core_checks_plans_runs_inspects_and_generates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    manifest, output, made = taught_by_files(tmp_path), tmp_path / "out", tmp_path / "made.png"
    assert "fits together. 2 effects" in call(monkeypatch, "check", str(manifest))
    assert "lora-file" in call(monkeypatch, "plan", str(manifest), "--json")
    assert "Try it:" in call(monkeypatch, "run", str(manifest), "--output", str(output))
    collection = output / "collection"
    assert "invert" in call(monkeypatch, "inspect", str(collection))
    before = tmp_path / "before.png"
    picture(3, (24, 24)).save(before)
    call(
        monkeypatch, "generate", str(collection), "--image", str(before), "--effect", "soften", "--output", str(made),
        "--device", "cpu",
    )  # fmt: skip
    assert made.is_file()
