"""The examples are run as a reader would run them, but for `pip install`: their sources are put on the path."""

from __future__ import annotations

import importlib
import inspect
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from cldistill.testing import check_loss_term, picture, plugin_environment
from cldistill.testing.runs import tiny_manifest

EXAMPLES = Path(__file__).parents[2] / "examples"


def entry_points(package: str) -> dict[str, str]:
    project = tomllib.loads((EXAMPLES / package / "pyproject.toml").read_text())["project"]
    points: dict[str, str] = project["entry-points"]["cldistill"]
    return points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "count"),
    [
        pytest.param("third_party_loss", 4, marks=pytest.mark.slow),
        pytest.param("third_party_base", 2, marks=pytest.mark.slow),
        pytest.param("third_party_gan", 4, marks=pytest.mark.slow),
        ("third_party_router", 3),
    ],
)
def test_the_tests_of_a_package_pass(package: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which has imported torch already: pytest is not started again."""
    monkeypatch.syspath_prepend(str(EXAMPLES / package / "src"))
    (file,) = (EXAMPLES / package / "tests").glob("test_*.py")
    tests = {name: test for name, test in runpy.run_path(str(file)).items() if name.startswith("test_")}
    assert len(tests) == count
    for name, test in tests.items():
        test(**({"tmp_path": tmp_path / name} if "tmp_path" in inspect.signature(test).parameters else {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("third_party_loss", "detail-fm"),
        ("third_party_base", "pixel-kontext"),
        ("third_party_gan", "gan-head"),
        ("third_party_router", "epochs"),
    ],
)
def test_a_package_once_installed_is_found(package: str, name: str) -> None:
    script = "from cldistill.catalogue import load_catalogue as c; print(*(e.component.name for e in c())); print(c().failures)"
    with plugin_environment(entry_points(package), [EXAMPLES / package / "src"], distribution=package) as environment:
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    names, failures = done.stdout.splitlines()
    assert name in names.split(), done.stderr
    assert package not in failures


@pytest.mark.parametrize(("package", "lines"), [("feature_gan", 120), ("epoch_router", 60)])
def test_a_package_stays_as_small_as_promised(package: str, lines: int) -> None:
    (folder,) = EXAMPLES.glob(f"*/src/{package}")
    assert sum(len(file.read_text().splitlines()) for file in folder.glob("*.py")) <= lines


@pytest.mark.slow
def test_a_loss_is_checked_on_another_base_than_the_tiny_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("third_party_gan", "third_party_base"):
        monkeypatch.syspath_prepend(str(EXAMPLES / package / "src"))
    gan, head = importlib.import_module("feature_gan.plugin").register_loss_terms()
    (base,) = importlib.import_module("pixel_kontext.plugin").register_base_models()
    check_loss_term(gan, beside=[head], base=base, base_options={"layers": 2}, through={"critic"}, fresh=False)


@pytest.mark.slow
def test_the_python_api_trains_and_generates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, output = tmp_path / "manifest.yaml", tmp_path / "out"
    manifest.write_text(yaml.safe_dump(tiny_manifest(tmp_path, steps=2)))
    picture(3).save(tmp_path / "cat.png")
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    main = runpy.run_path(str(EXAMPLES / "python_api.py"))["main"]
    with plugin_environment({}):
        main(str(manifest), str(tmp_path / "cat.png"), str(output))
    assert {"invert.png", "soften.png"} <= {path.name for path in output.iterdir()}
