"""Lines of a log, hand-computed, and files of evaluations that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cldistill.errors import DataError
from cldistill_plugins.effectbench.figures.curves import quality_charts, series, training_charts, windowed


def update(slot: str, norm: float | None, losses: dict[str, float | None], **metrics: float) -> dict[str, Any]:
    found = {name.replace("_", "-", 1).replace("__", "/"): value for name, value in metrics.items()}
    return {"slot": slot, "losses": losses, "metrics": found, "grad_norm": norm}


RECORDS = [
    {"step": 1, "seconds": 2.0, "updates": [update("student", 1.0, {"ta-fm": 4.0})]},
    {
        "step": 2, "seconds": 4.0,
        "updates": [
            update("student", 3.0, {"ta-fm": 2.0, "bs-dmd": None}, bs_dmd__gradient=0.5, bs_dmd__sigma=0.1),
            update("critic", 1.0, {"fake-score": 1.0}),
            update("critic", 2.0, {"fake-score": 2.0}),
        ],
    },
]  # fmt: skip


def test_a_step_is_the_mean_of_its_updates() -> None:
    assert series(RECORDS) == {
        ("loss ta-fm", "loss"): [(1, 4.0), (2, 2.0)],
        ("loss fake-score", "loss"): [(2, 1.5)],
        ("gradient of bs-dmd", "root mean square of g"): [(2, 0.5)],
        ("gradient norm, student", "norm before clipping"): [(1, 1.0), (2, 3.0)],
        ("gradient norm, critic", "norm before clipping"): [(2, 1.5)],
        ("time", "seconds a generator step"): [(1, 2.0), (2, 4.0)],
    }


def test_windows_are_equal_and_reach_from_the_first_value_to_the_last() -> None:
    values = [(11, 1.0), (12, 3.0), (13, 5.0), (18, 7.0)]
    assert windowed(values, 2) == [[12.0, 3.0], [18.0, 7.0]]  # steps 11-14 and 15-18
    assert windowed(values, 4) == [[11.5, 2.0], [13.0, 5.0], [18.0, 7.0]]  # 15-16 has nothing
    assert windowed(values, 0) == [[13.5, 4.0]]


def test_a_long_line_is_thinned_out(tmp_path: Path) -> None:
    records = [{"step": step, "seconds": 1.0, "updates": [update("student", 1.0, {})]} for step in range(1, 2001)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (chart, _) = training_charts({"a": tmp_path})
    assert len(chart["lines"][0]["points"]) == 30


def log(folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return folder


def test_runs_share_a_chart_and_charts_have_an_order(tmp_path: Path) -> None:
    charts = training_charts({"a": log(tmp_path / "1"), "b": log(tmp_path / "2")})
    titles = [chart["title"] for chart in charts]
    assert titles == [
        "loss fake-score", "loss ta-fm", "gradient of bs-dmd", "gradient norm, critic", "gradient norm, student", "time",
    ]  # fmt: skip
    assert charts[1]["lines"] == [{"name": name, "points": [[1.5, 3.0]]} for name in "ab"]
    assert charts[1]["x"] == "generator steps" and charts[1]["y"] == "loss"


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: metrics\.jsonl is missing"):
        training_charts({"a": tmp_path / "nowhere"})


def test_evaluations_of_one_metric_share_a_chart(tmp_path: Path) -> None:
    for name in "ab":
        text = {"name": name, "metric": "distance", "points": [[20, 0.5], [10, 1]]}
        (tmp_path / f"{name}.json").write_text(json.dumps(text))
    (chart,) = quality_charts([tmp_path / "a.json", tmp_path / "b.json"])
    assert chart["title"] == chart["y"] == "distance"
    assert chart["lines"][1] == {"name": "b", "points": [[10.0, 1.0], [20.0, 0.5]]}


@pytest.mark.parametrize(
    "text", ["{", '{"name": "a"}', '{"name": "a", "metric": 1, "points": [[1, 2]]}',
             '{"name": "a", "metric": "m", "points": []}', '{"name": "a", "metric": "m", "points": [[1]]}',
             '{"name": "a", "metric": "m", "points": [[1, 1' + "0" * 400 + "]]}", "[" * 200_000],
)  # fmt: skip
def test_an_evaluation_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: must be"):
        quality_charts([tmp_path / "x.json"])
    with pytest.raises(DataError, match="cannot be read"):
        quality_charts([tmp_path / "absent.json"])
