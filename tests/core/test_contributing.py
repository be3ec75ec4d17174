"""CONTRIBUTING.md: the tutorial's code runs as printed, and every name and link on the page exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cldistill import testing
from cldistill.cli.main import app
from cldistill.plugins import HOOK_KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def written(folder: Path) -> dict[str, Path]:
    """Write the page's Python blocks under the names that their first lines give them."""
    files = {}
    for text in (text for language, text in BLOCKS if language == "python"):
        name = text.splitlines()[0].removeprefix("# ")
        files[name] = folder / name
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_text(text)
    return files


@pytest.mark.slow
def test_the_loss_term_of_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path)
    assert {"steady_loss/plugin.py", "tests/test_steady.py"} <= set(files)
    assert len([line for line in files["steady_loss/plugin.py"].read_text().splitlines() if line.strip()]) <= 45
    monkeypatch.syspath_prepend(str(tmp_path))
    tests = runpy.run_path(str(files["tests/test_steady.py"]))
    tests["test_it_conforms"]()
    tests["test_it_trains_beside_flow_matching"](tmp_path)


@pytest.mark.slow
def test_the_command_of_the_page_is_listed_and_runs(tmp_path: Path) -> None:
    written(tmp_path)
    report = check_collection(tmp_path)
    with testing.plugin_environment({"counting": "counting.plugin"}, [tmp_path]):
        runner = CliRunner()
        assert "Count the effects of a collection." in " ".join(runner.invoke(app, ["--help"]).output.split())
        done = runner.invoke(app, ["count", str(report)])
    assert (done.exit_code, done.output) == (0, "2 effects\n")


def check_collection(folder: Path) -> Path:
    """Make the smallest collection there is: an exported one of the kit's."""
    return testing.run_manifest(folder / "run", testing.catalogue_with(), steps=1).folder / "collection"


def test_the_entry_point_of_the_tutorial_names_its_module() -> None:
    (table,) = [text for language, text in BLOCKS if language == "toml"]
    assert tomllib.loads(table)["project"]["entry-points"]["cldistill"] == {"steady": "steady_loss.plugin"}


def test_the_blocks_are_valid_python() -> None:
    for text in (text for language, text in BLOCKS if language == "python"):
        ast.parse(text)


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        found = target[1:] in headings if target.startswith("#") else (ROOT / target).exists()
        assert found, target


def test_the_files_of_the_tour_exist() -> None:
    tour = PAGE.split("from the outside in:")[1].split("## The arrows")[0]
    named = {name.rstrip("/") for name in re.findall(r"`([\w*]+(?:\.py|/))`", tour)}
    there = {path.name for path in (ROOT / "core/cldistill").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert named <= there
    assert there - named <= {"__pycache__", "__init__.py", "__main__.py", "errors.py", "precision.py"}


def test_all_hooks_and_checks_are_listed() -> None:
    assert set(re.findall(r"\| `(register_\w+)`", PAGE)) == set(HOOK_KINDS)
    assert set(re.findall(r"`(check_\w+)` \|", PAGE)) == {f"check_{kind}" for kind in HOOK_KINDS.values()}
    for name in ("update_context", "run_manifest", "catalogue_with", "plugin_environment", *testing.__all__):
        assert inspect.isroutine(getattr(testing, name)) or isinstance(getattr(testing, name), type), name


def test_the_dotted_names_on_the_page_exist() -> None:
    for dotted in set(re.findall(r"`(cldistill\.\w+(?:\.\w+)*)`", PAGE)):
        module, _, name = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), dotted
