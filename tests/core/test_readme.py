"""README and the pages that it leads to: their links, picture, commands, manifests and Python are there and work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import typer
from PIL import Image

from cldistill.cli.main import app
from cldistill.collection.collection import Collection
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
