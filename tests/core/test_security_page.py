"""docs/security.md and SECURITY.md: what they name is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs/security.md", ROOT / "SECURITY.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for file in re.findall(r"`(tests/[^`]+)`", text):
        assert (ROOT / file).is_file(), file
    for name in re.findall(r"`(cldistill\.[\w.]+)`", text):
        module, _, member = name.rpartition(".")
        assert hasattr(import_module(module), member), name
