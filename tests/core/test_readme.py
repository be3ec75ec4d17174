"""README and the pages that it leads to: their links, picture, commands, manifests and Python are there and work."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image

from cldistill.cli.main import app
from cldistill.collection.collection import Collection
from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest

ROOT = Path(__file__).parents[2]
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
FIRST, PAGE = PAGES[ROOT / "README.md"], "\n".join(PAGES.values())


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def test_links_and_the_picture_of_a_result_are_there() -> None:
    for path, page in PAGES.items():
        for link in re.findall(r"\]\(([^)#]+)\)", page):
            assert "://" in link or (path.parent / link).exists(), f"{path}: {link}"
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", FIRST)
    with Image.open(ROOT / picture) as opened:
        assert min(opened.size) > 500


def test_its_manifests_fit_together(tmp_path: Path) -> None:
    training, evaluation = (
        text for name in ("manifest", "measuring") for text in blocks("yaml", PAGES[ROOT / f"docs/{name}.md"])
    )
    (tmp_path / "my-run.yaml").write_text(training)
    (tmp_path / "eval.yaml").write_text(evaluation)
    checked = check_manifest(str(tmp_path / "my-run.yaml"), files=False)
    assert [loss.loss.name for loss in checked.losses] == ["bs-dmd", "ts-dmd", "ta-fm", "fake-score"]
    measured = check_manifest(str(tmp_path / "eval.yaml"), files=False, measuring=True)
    assert [part.name for part in measured.metrics] == ["clip", "dino", "mllm-judge"]


def fragments() -> list[Any]:
    """Return every piece of a manifest in the pages and in the built-in plugins' READMEs, under its file's name."""
    own = {
        path: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("plugins/cldistill_plugins/*/README.md"))
    }
    found = [
        (str(path.relative_to(ROOT)), text) for path, page in (PAGES | own).items() for text in blocks("yaml", page)
    ]
    whole = re.compile("^(cldistill|extends):", flags=re.MULTILINE)
    return [pytest.param(text, id=path) for path, text in found if not whole.search(text)]


@pytest.mark.parametrize("text", fragments())
def test_a_piece_of_a_manifest_fits_into_the_whole_one(tmp_path: Path, text: str) -> None:
    """It replaces what it names, or its losses and observers are added to those that are there."""
    pages = (PAGES[ROOT / f"docs/{name}.md"] for name in ("manifest", "measuring"))
    whole, measuring = (yaml.safe_load(blocks("yaml", page)[0]) for page in pages)
    piece = yaml.safe_load(text.replace("OWNER/NAME", "./theirs").replace("wandb", "tensorboard"))
    if "evaluate" in piece:
        whole["evaluate"] = measuring["evaluate"] | {"metrics": []}
    told = []
    for added in (("losses", "observers"), ()):
        try:
            changed = {key: _merged(whole.get(key), value, key in added) for key, value in piece.items()}
            _check(tmp_path / "mine.yaml", changed, whole)
        except ManifestError as error:
            told.append(str(error))
        else:
            return
    pytest.fail("\n".join(told))


def _merged(known: Any, value: Any, added: bool) -> Any:
    return [*(known or ()), *value] if added else known | value if isinstance(known, dict) else value


def _check(file: Path, changed: dict[str, Any], whole: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(whole | changed, sort_keys=False))
    check_manifest(str(file), files=False, measuring=True)


def test_its_commands_exist() -> None:
    group = typer.main.get_command(app)
    known = set(group.list_commands(typer.Context(group)))  # type: ignore[attr-defined]
    named = set(re.findall(r"`cldistill (\w+)", PAGE)) | set(re.findall(r"^cldistill (\w+)", PAGE, flags=re.MULTILINE))
    assert named <= known
    assert set(re.findall(r"^\| `cldistill (\w+)", PAGE, flags=re.MULTILINE)) == known


def test_the_first_page_leads_to_every_other_one() -> None:
    assert {f"docs/{path.name}" for path in PAGES if path.parent.name == "docs"} <= set(
        re.findall(r"\(([^)]+)\)", FIRST)
    )


def test_its_python_is_ten_lines_of_what_there_is() -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    used = {node.attr for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    assert {"load", "effects", "generate"} <= used
    assert hasattr(Collection, "load")
    assert hasattr(Collection, "generate")
