"""The browser itself: a page opens from disk, and what goes wrong in it is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def test_errors_and_requests_of_a_page_are_seen(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>throw new Error('planted')</script><img src='missing.png'>")
    browser.open(page)
    assert any("planted" in message for message in browser.errors())
    assert [Path(url).name for url in browser.requests()] == ["page.html", "missing.png"]


def test_a_screen_has_the_size_and_colours_asked_for(browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<meta name=viewport content='width=device-width'>")
    browser.open(page)
    browser.screen((390, 844), "dark", touch=True)
    assert browser.js("return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [390, True]
