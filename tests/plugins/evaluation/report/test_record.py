"""Reading an evaluation folder: what is wrong with one is said in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cldistill.errors import DataError, UnsafePathError
from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.record import picture_path, read_evaluation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_evaluation(tmp_path / "evaluation", effects=("ink", "grey"), pictures=2, size=16)


def change(folder: Path, **changes: Any) -> None:
    file = folder / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_is_read_with_its_pictures(folder: Path) -> None:
    found = read_evaluation(folder)
    assert [effect.name for effect in found.effects] == ["ink", "grey"]
    assert found.systems[1].label == "Ours"
    assert picture_path(folder, "ours", "ink", "scene-1").is_file()
    assert picture_path(folder, "source", "ink", "scene-1") == folder / "pictures" / "source" / "scene-1.webp"


def test_a_later_key_is_no_mistake(folder: Path) -> None:
    change(folder, weather="fine")
    assert read_evaluation(folder).name == "drawn scenes"


def test_a_folder_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no evaluation folder.*cldistill eval"):
        read_evaluation(tmp_path)


def test_the_report_of_a_run_that_measured_nothing_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"run": {"seconds": 8}}')
    with pytest.raises(DataError, match=r"a run whose manifest has no `evaluate:` reports nothing but its own figures"):
        read_evaluation(tmp_path)


def test_another_format_is_refused(folder: Path) -> None:
    change(folder, format=2)
    with pytest.raises(DataError, match="format: Input should be 1"):
        read_evaluation(folder)


@pytest.mark.parametrize("column", ["../x", "/etc", "a\0b"])
def test_names_of_somebody_elses_report_lead_nowhere_else(column: str, folder: Path) -> None:
    with pytest.raises(UnsafePathError):
        picture_path(folder, column, "ink", "p")
    with pytest.raises(UnsafePathError):
        picture_path(folder, "source", "ink", f"../../{column}")
    assert picture_path(folder, "ours", "ink", "\u202e\n.x").name == "\u202e\n.x.webp"
    (folder / "pictures/elsewhere").symlink_to("/")
    with pytest.raises(UnsafePathError, match="a link that leads out"):
        picture_path(folder, "elsewhere", "ink", "p")


def test_a_value_a_picture(folder: Path) -> None:
    values = read_evaluation(folder).model_dump()["values"]
    values["ours"]["ink"]["bcr"] = [0.0]
    change(folder, values=values)
    with pytest.raises(DataError, match=r"values\.ours\.ink\.bcr has 1 values for 2 pictures"):
        read_evaluation(folder)


def test_the_general_pool_has_its_own_pictures(folder: Path) -> None:
    values = read_evaluation(folder).model_dump()["values"]
    values["ours"]["general"] = {"retention": [0.5, 0.25, 0.125]}
    change(folder, values=values, general={"items": ["a", "b", "c"]})
    assert read_evaluation(folder).keys_of("general") == ["a", "b", "c"]


def test_failure_families_are_those_that_a_metric_named(folder: Path) -> None:
    change(
        folder,
        failures={"ours": {"ink": {"scene-0": "too-ugly", "scene-1": "blur"}}, "base": {"ink": {"scene-0": "blur"}}},
    )
    assert read_evaluation(folder).families == {"blur": "Blur", "too-ugly": "Too ugly"}
    change(folder, failures={"ours": {"ink": {"scene-0": 3}}})
    with pytest.raises(DataError, match=r"failures\.ours\.ink\.scene-0"):
        read_evaluation(folder)
