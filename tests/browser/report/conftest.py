"""A report of three systems, open in Chromium."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.html import write_report

RESET = """
    for (const form of document.forms) form.reset();
    document.getElementById("score-filters").dispatchEvent(new Event("input"));
    for (const select of document.querySelectorAll("#left, #right")) {
      select.value = [...select.options].find((option) => option.defaultSelected).value;
      select.dispatchEvent(new Event("change"));
    }
    const divider = document.querySelector("#slider input");
    divider.value = 50;
    divider.dispatchEvent(new Event("input"));
    scrollTo(0, 0);
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of eight effects on three pictures by ``base``, ``lightning`` and ``ours``, with its report."""
    made = write_evaluation(
        tmp_path_factory.mktemp("report") / "evaluation", systems=("base", "lightning", "ours"), size=64, failing=0.5
    )
    write_report(made)
    return made


@pytest.fixture
def open_report(browser: Any) -> Callable[[Path], Any]:
    """Open the report of a folder and wait until its plots are drawn."""

    def opened(folder: Path) -> Any:
        browser.open(folder / "report.html")
        browser.wait("document.documentElement.dataset.charts")
        return browser

    return opened


@pytest.fixture
def page(browser: Any, folder: Path, open_report: Callable[[Path], Any]) -> Any:
    """The report as it opens; opened once and then put back, for opening takes a second."""
    if not browser.driver.current_url.startswith((folder / "report.html").as_uri()):
        return open_report(folder)
    browser.js(RESET)
    browser.wait_js("setTimeout(done, 0)")
    return browser
