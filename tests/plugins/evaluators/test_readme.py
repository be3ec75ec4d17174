"""The plugin's page names every part, option, column and file, and what it shows is a manifest's."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import cldistill_plugins.evaluators as package
from cldistill.component import AnyComponent
from cldistill.plugins import register
from cldistill_plugins.evaluators import clip, dino, dreamsim, editreward, judge, plugin

FOLDER = Path(package.__file__).parent
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
PARTS = {part.name: part for part in register(plugin).components}


def spans() -> str:
    return " ".join(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))


def row(part: AnyComponent) -> str:
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{part.name}` |"))
    return line


def test_every_part_and_option_is_on_the_page() -> None:
    for part in PARTS.values():
        assert f"| {part.kind.replace('_', ' ')} |" in row(part)
        for option in part.settings.model_fields:
            assert re.search(rf"\b{option}\b", spans()), f"{part.name}: {option}"


def test_every_column_is_in_its_metrics_row() -> None:
    for module in (clip, dino, dreamsim, editreward, judge):
        (part,) = (p for p in PARTS.values() if p.kind == "metric" and p.build.__module__ == module.__name__)
        assert set(module.COLUMNS) <= set(re.findall(r"`(\w+)`", row(part)))


def test_the_files_on_the_page_exist() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE))
    assert named == {path.name for path in FOLDER.glob("*.py")} - {"__init__.py", "plugin.py"}


def test_the_metrics_on_the_page_have_these_options() -> None:
    shown = [entry for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
             for entry in yaml.safe_load(block)["evaluate"]["metrics"]]  # fmt: skip
    assert [entry["use"] for entry in shown] == ["clip", "dino", "dreamsim", "mllm-judge"]
    for entry in shown:
        PARTS[entry["use"]].settings.model_validate(entry.get("options", {}))
