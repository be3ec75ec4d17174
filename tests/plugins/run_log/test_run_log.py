"""`run.log`: what the run said, with the time; a resumed run writes on, and an error is in it with its traceback."""

from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from cldistill.testing import catalogue_with, run_manifest
from cldistill_plugins.run_log import plugin
from cldistill_plugins.run_log.run_log import FILE, RunLog

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


@pytest.mark.slow
def test_a_run_leaves_what_it_said(tmp_path: Path) -> None:
    done = run_manifest(tmp_path, catalogue_with(plugin))
    text = (done.folder / FILE).read_text()
    for expected in ("loading the base model", f"training is done after step {done.steps}", "torch ", "Try it:"):
        assert expected in text
    assert all(re.match(rf"{TIME}| {{21}}", line) for line in text.splitlines()), text
    assert "\x1b" not in text
    run_manifest(tmp_path, catalogue_with(plugin))
    assert (done.folder / FILE).read_text().startswith(text)


def test_warnings_and_crashes_are_in_it_and_a_display_is_not(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    log = RunLog(tmp_path, console)
    try:
        with Live("drawn over itself", console=console, refresh_per_second=50):
            console.print("[bold]said[/] once")
        warnings.warn("be careful", UserWarning, stacklevel=1)
        logging.getLogger("library").warning("of the library")
        log.run_failed(None, ValueError("went wrong"))  # type: ignore[arg-type]
    finally:
        log.detach()
    console.print("after the end")
    text = (tmp_path / FILE).read_text()
    assert re.search(rf"{TIME}said once\n", text)
    assert "UserWarning: be careful" in text
    assert "warning: library: of the library" in text
    assert "ValueError: went wrong" in text
    assert "drawn over itself" not in text
    assert "after the end" not in text


def test_a_quiet_console_is_logged_all_the_same(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), quiet=True)
    log = RunLog(tmp_path, console)
    console.print("said quietly")
    log.detach()
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]
    assert "said quietly" in (tmp_path / FILE).read_text()
