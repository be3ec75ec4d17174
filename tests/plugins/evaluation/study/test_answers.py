"""Answer files: every mistake is found, and said in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cldistill.errors import DataError
from cldistill_plugins.evaluation.study.answers import read_answers
from cldistill_plugins.evaluation.study.key import StudyKey, read_key

OURS = ["ours"] * 6


def test_good_files_are_read(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    found = read_answers(key, [write_answers("Ann", OURS), write_answers("Bob", OURS)])
    assert [one.evaluator.name for one in found] == ["Ann", "Bob"]


def test_another_studys_answers_are_refused(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"is of another study \(xyz; the key's is abc\)"):
        read_answers(key, [write_answers("Ann", OURS, study="xyz")])


def test_missing_sets_are_counted_or_taken(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    path = write_answers("Ann", OURS[:4])
    with pytest.raises(DataError, match=r"2 of 6 sets are not fully answered: ask Ann to finish.*--partial"):
        read_answers(key, [path])
    assert len(read_answers(key, [path], partial=True)[0].answers) == 4


def test_one_question_left_out_is_a_set_not_fully_answered(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    path = write_answers("Ann", OURS)
    content = json.loads(path.read_text())
    del content["answers"]["s3"]["style"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 of 6 sets are not fully answered"):
        read_answers(key, [path])


def test_two_files_of_one_evaluator_are_refused(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    first, second = write_answers("Ann", OURS), write_answers("Ann", OURS)
    with pytest.raises(DataError, match=rf"{second.name}: Ann's answers are in .*{first.name} too: keep the later"):
        read_answers(key, [first, second])


def test_two_evaluators_of_one_name_are_asked_about(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    other = write_answers("ann ", OURS, evaluator={"name": " ANN", "id": "another"})
    with pytest.raises(
        DataError, match=r"If that is one person, keep one file; if they are two, change evaluator\.name"
    ):
        read_answers(key, [write_answers("Ann", OURS), other])


def test_a_file_changed_by_hand_is_found(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    path = write_answers("Ann", OURS)
    content = json.loads(path.read_text())
    content["answers"]["s0"]["quality"] = "t10"
    content["answers"]["s1"]["taste"] = "t10"
    content["answers"]["s9"] = {}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        read_answers(key, [path])
    text = str(caught.value)
    assert "answers.s0.quality: 't10' is no candidate of this set" in text
    assert "answers.s1.taste: the study asks no such question" in text
    assert "answers.s9: the study has no such set" in text


def test_all_files_are_judged_before_anything_is_said(
    key: StudyKey, write_answers: Callable[..., Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(DataError) as caught:
        read_answers(key, [broken, write_answers("Ann", OURS, study="xyz"), tmp_path / "nowhere.json"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "broken.json: is no answer file of a study" in lines[0]
    assert "nowhere.json: cannot be read: No such file" in lines[1]
    assert "another study" in lines[2]


def test_no_files_at_all(key: StudyKey) -> None:
    with pytest.raises(DataError, match="no answer files"):
        read_answers(key, [])


def test_a_missing_or_wrong_key_is_named(tmp_path: Path, write_answers: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_key(tmp_path / "key.json")
    with pytest.raises(DataError, match=r"is no key of a study in format 1: created"):
        read_key(write_answers("Ann", OURS))
