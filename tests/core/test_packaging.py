"""The wheel holds exactly three packages, and the folders of the repository are no packages of their own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the build backend that is installed (no network)."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(target.glob("*.whl"))


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_exactly_three_packages(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "cldistill", "cldistill_plugins", "cldistill_registry",
    }  # fmt: skip
    assert len(tops) == 4


def test_the_wheel_holds_every_plugin_recipe_and_type_marker(wheel: Path) -> None:
    found = set(names(wheel))
    for plugin in (ROOT / "plugins/cldistill_plugins").glob("*/plugin.py"):
        assert f"cldistill_plugins/{plugin.parent.name}/plugin.py" in found
    for recipe in (ROOT / "registry/cldistill_registry").glob("*.yaml"):
        assert f"cldistill_registry/{recipe.name}" in found
    assert "cldistill/py.typed" in found


def test_the_wheel_stays_small(wheel: Path) -> None:
    """The miniature base takes at most 15 MB of it; six teachers of 0.8 MB and their pairs come on top."""
    with zipfile.ZipFile(wheel) as archive:
        miniature = [info.compress_size for info in archive.infolist() if "/miniature/" in info.filename]
    assert 5e6 < sum(miniature) < 15e6
    assert wheel.stat().st_size < 20e6


def test_every_entry_point_has_its_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        path = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        section = archive.read(path).decode().split("[cldistill]")[1].split("[")[0]
        modules = [line.split("=")[1].strip() for line in section.splitlines() if "=" in line]
        assert modules
        assert [m for m in modules if f"{m.replace('.', '/')}.py" not in archive.namelist()] == []


@pytest.mark.parametrize("folder", ["core", "plugins", "registry"])
def test_folders_of_the_repository_are_not_importable(folder: str, tmp_path: Path) -> None:
    script = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({folder!r}) is not None)"
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize("package", ["cldistill", "cldistill_plugins", "cldistill_registry"])
def test_the_three_packages_are_importable_from_anywhere(package: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {package}"], cwd=tmp_path, check=False)
    assert done.returncode == 0
