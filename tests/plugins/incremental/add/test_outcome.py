"""What every effect gained or lost: measured after a growth, and the arithmetic of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cldistill_plugins.incremental.outcome import outcome, table

from .conftest import World, invoke

pytestmark = pytest.mark.slow


def report(**values: Any) -> dict[str, Any]:
    """Return a report of two old effects and a new one on three pictures."""
    ours = {
        "before": {"a": {"closeness": [0.5, 0.6, 0.7]}, "b": {"closeness": [0.4, 0.4, 0.4]}, "general": {"error": [2.0, 1.0]}},
        "after": {
            "a": {"closeness": [0.6, 0.7, 0.8]}, "b": {"closeness": [0.3, 0.5, 0.4]}, "c": {"closeness": [0.2, None, 0.4]},
            "general": {"error": [3.0, 2.0]},
        },
        "taught": {"c": {"closeness": [0.5, 0.5, 0.6]}},
    }  # fmt: skip
    return {
        "effects": [{"name": name} for name in ("a", "b", "c")],
        "metrics": {
            "closeness": {"title": "closeness", "better": "higher"}, "error": {"title": "error", "better": "lower"},
            "vsa": {"title": "VSA", "better": "higher"}, "signed": {"title": "signed", "better": None},
        },
        "values": ours,
        "per_effect": {s: {e: {"vsa": {"mean": 4.0 + i}} for e in own} for i, (s, own) in enumerate(ours.items())},
        "general": {"summary": {}},
        **values,
    }  # fmt: skip


def test_changes_are_paired_picture_by_picture() -> None:
    found = outcome(report(), ["c"])
    a = found.old["a"]["closeness"]
    assert (a.first, a.after, a.difference) == pytest.approx((0.6, 0.7, 0.1))
    assert (a.low, a.high) == pytest.approx((0.1, 0.1))  # every picture gained as much: nothing to doubt
    assert a.gain is True and a.relative == pytest.approx(1 / 6)
    b = found.old["b"]["closeness"]
    assert b.difference == pytest.approx(0) and b.gain is None
    assert found.mean["closeness"].difference == pytest.approx(0.05)
    c = found.new["c"]["closeness"]  # against its own teacher, on the pictures that both have
    assert (c.first, c.after) == pytest.approx((0.55, 0.3)) and c.gain is False
    assert found.general["error"].gain is False  # more error is worse
    assert "signed" not in found.titles


def test_one_picture_has_no_interval_and_says_neither_gain_nor_loss() -> None:
    values = {"before": {"a": {"closeness": [0.5]}}, "after": {"a": {"closeness": [0.6]}}, "taught": {}}
    found = outcome(report(effects=[{"name": "a"}], values=values, per_effect={}), [])
    a = found.old["a"]["closeness"]
    assert (a.low, a.high, a.gain, a.n) == (None, None, None, 1) and a.difference == pytest.approx(0.1)
    console = Console(width=160, record=True)
    console.print(table(found))
    assert "0.500 → 0.600 +0.100 (one picture: no interval)" in console.export_text()


def test_names_are_no_markup() -> None:
    values = {"before": {"a [/]": {"closeness": [0.5, 1]}}, "after": {"a [/]": {"closeness": [0.6, 1]}, "[red]": {}}}
    told = report(effects=[{"name": "a [/]"}, {"name": "[red]"}], values=values, per_effect={})
    told["metrics"]["closeness"]["title"] = "[closeness]"
    console = Console(width=160, record=True)
    console.print(table(outcome(told, ["[red]"])))
    shown = console.export_text()
    assert "a [/]" in shown and "[red], from its teacher" in shown and "[closeness]" in shown


def test_figures_of_whole_pools_have_no_interval() -> None:
    found = outcome(report(), ["c"])
    assert found.old["a"]["vsa"].difference == pytest.approx(1.0)
    assert (found.old["a"]["vsa"].low, found.old["a"]["vsa"].gain) == (None, None)
    assert found.to_json()["old"]["a"]["vsa"]["relative"] == pytest.approx(0.25)


def test_of_many_effects_those_that_changed_are_listed() -> None:
    names = [f"e{index:02d}" for index in range(20)]
    same = {"closeness": [0.5, 0.6, 0.7]}
    worse = {"closeness": [0.4, 0.5, 0.6]}
    values = {
        "before": {name: same for name in names},
        "after": {name: worse if name == "e07" else same for name in names} | {"c": same},
        "taught": {"c": same},
    }
    found = outcome(report(effects=[{"name": name} for name in [*names, "c"]], values=values, per_effect={}), ["c"])
    console = Console(width=160, record=True)
    console.print(table(found))
    text = console.export_text()
    assert "e07" in text and "e08" not in text and "19 others: no clear change" in text
    assert "0.600 → 0.500 -0.100 [-0.100, -0.100]" in text and "mean of 20" in text


def test_a_growth_says_what_changed(world: World, quick: Any) -> None:
    text = invoke("add", world.collection, world.root / "new/gilded frame", "--steps", "3", *quick("gilded"))
    assert "What every effect gained or lost" in text
    for row in ("invert", "soften", "mean of 2", "gilded, from its teacher", "general"):
        assert row in text
    found = json.loads((world.root / "run-plus-1/growth.json").read_text())
    folder = world.root / "run-plus-1/growth"
    report = json.loads((folder / "report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["before", "taught", "after"]
    assert set(report["per_effect"]["taught"]) == {"gilded"} and set(report["per_effect"]["before"]) == {
        "invert",
        "soften",
    }
    assert "not in its collection" not in report["systems"][1]["note"]
    shown = [np.asarray(Image.open(path)).mean() / 255 for path in sorted((folder / "pictures/after/invert").iterdir())]
    assert found["old"]["invert"]["brightness"]["after"] == pytest.approx(np.mean(shown), abs=1e-6)
    assert set(found["old"]["invert"]) == {"brightness", "pool"}
    assert found["general"]["brightness"]["first"] > 0


def test_without_evaluate_nothing_is_measured(world: World, quick: Any) -> None:
    arguments = (world.root / "new/gilded frame", "--steps", "2", *quick("gilded"), "--set", "evaluate=")
    text = invoke("add", world.collection, *arguments)
    assert "What changed was not measured" in text
    assert not (world.root / "run-plus-1/growth").exists()
