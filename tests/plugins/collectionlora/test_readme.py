"""The plugin's page names every part and every option, and its losses are a manifest's."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import cldistill_plugins.collectionlora as package
from cldistill.manifest.models import LossRef
from cldistill.plugins import register
from cldistill_plugins.collectionlora import plugin

FOLDER = Path(package.__file__).parent
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_part_and_option_is_on_the_page() -> None:
    spans = " ".join(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
    for component in register(plugin).components:
        assert f"| `{component.name}` |" in PAGE
        for option in component.settings.model_fields:
            assert re.search(rf"\b{option}\b", spans), f"{component.name}: {option}"


def test_the_files_on_the_page_exist() -> None:
    named = set(re.findall(r"`(\w+\.py)`", PAGE))
    assert named == {path.name for path in FOLDER.glob("*.py")} - {"__init__.py", "plugin.py"}


def test_the_losses_on_the_page_are_the_papers() -> None:
    block, *_ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    losses = [LossRef.model_validate(loss) for loss in yaml.safe_load(block)["losses"]]
    assert [(loss.use, loss.streams) for loss in losses] == [
        ("bs-dmd", None), ("ts-dmd", ("effect",)), ("ta-fm", ("effect",)), ("fake-score", None),
    ]  # fmt: skip
