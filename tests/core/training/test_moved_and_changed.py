"""A run goes on after its folder or its environment was moved; not, unless told to, after a plugin of it has changed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from cldistill.errors import CheckpointError
from cldistill.manifest.check import check_manifest
from cldistill.runner import execute
from cldistill.storage.files import source_digest
from cldistill.testing import plugin_environment
from cldistill.testing.runs import tiny_manifest
from cldistill.training.checkpoint import read

PLUGIN = """
from cldistill.component import LocalPath, Needs, Settings, stream_router
from cldistill.markers import hookimpl
from cldistill.records import Route

class WeightedSettings(Settings):
    names: LocalPath

class Weighted:
    def __init__(self, names): self.names = names
    def route(self, request):
        return Route("effect", {self.names[request.random.integer(len(self.names), "effect")]: 1.0})

@hookimpl
def register_stream_routers():
    describe = lambda settings: Needs(streams=frozenset({"effect"}))
    build = lambda settings, context: Weighted(settings.names.read_text().split())
    return [stream_router("weighted", "effects from a file", WeightedSettings, describe, build)]
"""


def site_packages(folder: Path) -> Path:
    """An environment that holds the plugin, with data beside its code."""
    package = folder / "weighted_router"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (package / "names.txt").write_text("invert soften invert")
    return folder


def go(folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Run the manifest in ``folder`` as a new process would: nothing of the plugin is remembered."""
    for name in [name for name in sys.modules if name.startswith("weighted_router")]:
        del sys.modules[name]
    source_digest.cache_clear()
    monkeypatch.setenv("CLDISTILL_CACHE", str(folder / "cache"))
    router = {"use": "weighted", "options": {"names": "package:weighted_router/names.txt"}}
    train = {"generator_steps": 2, "batch_size": 1, "checkpoint_every": 1, "device": "cpu"}
    data = tiny_manifest(folder, router=router, train=train, targets={"from": "pair"})
    for effect in data["effects"]:  # relative, and so below the moved folder
        effect["pairs"] = str(Path(effect["pairs"]).relative_to(folder))
        effect["teacher"] = {"use": "tiny-teacher"}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(data))
    with plugin_environment({"weighted": "weighted_router.plugin"}, [site]):
        checked = check_manifest(str(folder / "manifest.yaml"))
        execute(checked, folder / "run", Console(quiet=True), "again", leave_out=["evaluate"], **options)


def weights(folder: Path) -> dict[str, bytes]:
    last = folder / "run" / "checkpoints" / "step-000002"
    return {file.name: file.read_bytes() for file in last.glob("*.safetensors")}


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, dict[str, bytes]]:
    """A run of two steps that was killed after the first, its environment, and the weights of the unbroken one."""
    folder, site = tmp_path / "here", site_packages(tmp_path / "environment" / "site-packages")
    folder.mkdir()
    go(folder, site, monkeypatch)
    whole = weights(folder)
    assert whole
    shutil.rmtree(folder / "run" / "checkpoints" / "step-000002")
    return folder, site, whole


@pytest.mark.slow
def test_a_moved_folder_and_environment_go_on_byte_for_byte(half: Any, tmp_path: Path, monkeypatch: Any) -> None:
    folder, site, whole = half
    moved, elsewhere = tmp_path / "other" / "place", tmp_path / "venv" / "lib"
    shutil.move(folder, moved)
    shutil.move(site, elsewhere)
    shutil.rmtree(site.parent)
    go(moved, elsewhere, monkeypatch)
    assert weights(moved) == whole
    assert str(tmp_path) not in (moved / "run/checkpoints/step-000002/checkpoint.json").read_text()


@pytest.mark.slow
def test_a_changed_plugin_is_refused_by_name_and_recorded_where_it_goes_on(half: Any, monkeypatch: Any) -> None:
    folder, site, whole = half
    old = read(folder / "run/checkpoints/step-000001").meta["plugins"]["weighted"]
    source = site / "weighted_router" / "plugin.py"
    source.write_text(source.read_text() + "# another line\n")
    refusal = r"plugin 'weighted' was a-plugin-under-test 0.0, source [\s\S]*--changed-plugins"
    with pytest.raises(CheckpointError, match=refusal) as no:
        go(folder, site, monkeypatch)
    go(folder, site, monkeypatch, may_change=["plugins"])
    assert weights(folder) == whole, "only a comment has changed"
    meta = json.loads((folder / "run/checkpoints/step-000002/checkpoint.json").read_text())["meta"]
    new = meta["plugins"]["weighted"]
    assert old != new and f"was {old}, and is {new}" in str(no.value)
    (change,) = meta["plugin_changes"]
    assert change == f"after step 1 plugin 'weighted' was {old}, and is {new}"
    assert change in (folder / "run" / "manifest.resolved.yaml").read_text()
