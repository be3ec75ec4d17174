"""The estimate of a growth's time, from the log of the collection's own run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cldistill_plugins.incremental.estimate import StageTime, read_pace, read_stages

LOG = """\
2026-11-29 05:39:50  ✓ loading the base model  6.3 s
2026-11-29 05:40:07  encoding pictures and prompts: 2/22
2026-11-29 05:41:30  ✓ encoding pictures and prompts  1,022   1:34
2026-11-29 05:42:07  ✓ sampling targets: crimson-oil  3   1:00:30
2026-11-29 05:53:48  ✓ encoding pictures and prompts  1,022   0.1 s
2026-11-29 05:53:50  ✓ reading the backbone  already there
2026-11-29 05:54:16  ✗ writing the report  stopped at 0 of 1
"""


def test_of_a_stage_that_was_done_twice_the_longer_time_counts() -> None:
    assert read_stages(LOG) == {
        "loading the base model": StageTime(1, 6.3),
        "encoding pictures and prompts": StageTime(1022, 94.0),
        "sampling targets: crimson-oil": StageTime(3, 3630.0),
    }


def test_the_pace_is_that_of_one_items_forward_pass(tmp_path: Path) -> None:
    assert read_pace(tmp_path, 2, 1.0) is None
    # 0.25 s a forward pass of one item: 7 calls of two items, and a pass back for each of three updates
    steps = [{"step": n, "seconds": 0.25 * 2 * (7 + 3), "forwards": 7, "updates": [{}] * 3} for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (tmp_path / "run.log").write_text(LOG, encoding="utf-8")
    pace = read_pace(tmp_path, 2, 1.0)
    assert pace is not None and pace.call == pytest.approx(0.25)
    assert pace.seconds("loading the base model", "reading the backbone") == 6.3
    assert pace.each("encoding pictures and prompts") == pytest.approx(94 / 1022)
    assert pace.each("sampling targets: halftone", otherwise=0.5) == 0.5
