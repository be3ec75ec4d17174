"""From answers to the preference table: shares, intervals and agreement, against numbers worked out by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import DataError
from cldistill_plugins.evaluation.study.agreement import fleiss_kappa, in_words
from cldistill_plugins.evaluation.study.answers import read_answers
from cldistill_plugins.evaluation.study.key import StudyKey
from cldistill_plugins.evaluation.study.preferences import Share, prefer, tally, votes_of
from cldistill_plugins.evaluation.study.show import markdown, share_text, table

FLEISS_1971 = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
"""The textbook's ten subjects by fourteen raters in five categories; kappa is 0.210."""


def counts(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, dtype=float)


def test_kappa_of_the_textbook() -> None:
    kappa = fleiss_kappa(counts(FLEISS_1971))
    assert kappa == pytest.approx(0.2099, abs=5e-5)
    assert in_words(kappa) == "fair"


def test_kappa_by_hand() -> None:
    # Two raters, three sets: they agree on the first two.  P = (1 + 1 + 0)/3; p = (3/6, 3/6), so chance is 1/2.
    assert fleiss_kappa(counts([[2, 0], [0, 2], [1, 1]])) == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2))
    assert fleiss_kappa(counts([[3, 0], [0, 3]])) == pytest.approx(1.0)
    # A set that one rater answered changes nothing.
    assert fleiss_kappa(counts([[2, 0], [0, 2], [1, 1], [1, 0]])) == pytest.approx(1 / 3)


def test_kappa_where_nobody_can_agree_or_disagree() -> None:
    assert fleiss_kappa(counts([[1, 0], [0, 1]])) is None
    assert fleiss_kappa(counts([[2, 0], [2, 0]])) is None
    assert in_words(None) == "not defined"


def test_votes_follow_the_key_and_not_the_place(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    best = ["ours", "ours", "ours", "base", "base", "lightning"]
    votes = votes_of(key, read_answers(key, [write_answers("Ann", best)]), "style")
    assert votes.shape == (1, 6, 3)
    assert votes.sum(axis=(0, 1)).tolist() == [2, 1, 3]
    assert votes[0, 3].tolist() == [1, 0, 0]


def test_shares_and_their_intervals() -> None:
    votes = np.zeros((10, 50, 2))
    chosen = np.random.default_rng(0).random((10, 50)) < 0.6
    votes[..., 0], votes[..., 1] = chosen, ~chosen
    found = prefer(votes, ["ours", "base"], seed=0, draws=1000)
    ours, base = found.shares["ours"], found.shares["base"]
    assert ours.votes == chosen.sum() and ours.share == pytest.approx(chosen.mean())
    assert ours.share + base.share == pytest.approx(1.0)
    assert ours.low < ours.share < ours.high
    # Independent votes: not narrower than the binomial interval of 500, and not twice as wide.
    binomial = 2 * 1.96 * (0.6 * 0.4 / 500) ** 0.5
    assert binomial * 0.9 < ours.high - ours.low < binomial * 2
    assert found.kappa is not None and abs(found.kappa) < 0.1


def test_people_who_differ_widen_the_interval() -> None:
    alike, apart = np.zeros((8, 40, 2)), np.zeros((8, 40, 2))
    alike[:, ::2, 0] = alike[:, 1::2, 1] = 1
    apart[:4, :, 0] = apart[4:, :, 1] = 1
    widths = [
        share.high - share.low for votes in (alike, apart) for share in [prefer(votes, ["a", "b"], 0, 500).shares["a"]]
    ]
    assert widths[1] > 1.5 * widths[0]


def test_answers_about_one_set_have_no_interval() -> None:
    votes = np.zeros((3, 4, 2))
    votes[:2, 1, 0] = votes[2, 1, 1] = 1
    found = prefer(votes, ["ours", "base"], seed=0, draws=100)
    assert found.shares["ours"] == Share(2, pytest.approx(2 / 3), None, None)
    assert found.kappa is not None and found.kappa_low is None
    assert share_text(found.shares["ours"]) == "66.7 % one picture: no interval"


def test_a_single_evaluator_has_shares_and_no_agreement(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    found = tally(key, read_answers(key, [write_answers("Ann", ["ours"] * 6)]), draws=50).questions["quality"]
    assert (found.shares["ours"].share, found.kappa, found.kappa_low) == (1.0, None, None)


def test_titles_are_no_markup_in_the_terminal(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    odd = key.model_copy(update={"evaluation": "a [/] b", "systems": (key.systems[0].model_copy(update={"title": "[red]"}),
                                                                      *key.systems[1:])})  # fmt: skip
    console = Console(file=StringIO(), width=120)
    console.print(table(odd, tally(key, read_answers(key, [write_answers("Ann", ["ours"] * 6)]), draws=50)))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a [/] b" in shown and "[red]" in shown


def test_a_pipe_is_no_answer(key: StudyKey, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "answers.json")
    with pytest.raises(DataError, match=r"answers\.json: is no file"):
        read_answers(key, [tmp_path / "answers.json"])


def test_the_table_in_markdown(key: StudyKey, write_answers: Callable[..., Path]) -> None:
    best = ["ours", "ours", "ours", "base", "base", "lightning"]
    files = [write_answers(name, best) for name in ("Ann", "Bob")]
    text = markdown(key, tally(key, read_answers(key, files), draws=100))
    lines = text.splitlines()
    assert "2 evaluators, 6 sets" in lines[0] and "chance 33.3 %" in lines[0]
    assert lines[2] == "| Best in | Base | Lightning | Ours | Agreement |"
    assert lines[4].startswith("| Quality | 33.3 % [") and "1.00" in lines[4] and "almost perfect" in lines[4]


@pytest.mark.slow
def test_the_command_writes_and_prints_the_table(
    key: StudyKey, write_answers: Callable[..., Path], tmp_path: Path
) -> None:
    study = tmp_path / "study"
    key.write(study / "key.json")
    files = [str(write_answers(name, ["ours"] * 5 + [last])) for name, last in (("Ann", "ours"), ("Bob", "base"))]
    done = CliRunner().invoke(app, ["study", "--tally", str(study / "key.json"), *files], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "91.7 %" in done.output
    found = json.loads((study / "tally.json").read_text())
    assert (found["evaluators"], found["sets"], found["chance"]) == (2, 6, pytest.approx(1 / 3))
    assert found["questions"]["style"]["systems"]["ours"]["votes"] == 11
    assert "Ann" not in json.dumps(found), "the table is no list of people"
    assert (study / "tally.md").read_text().count("91.7 %") == 3


def test_the_command_asks_for_what_it_needs(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "say where the study goes" in runner.invoke(app, ["study", str(tmp_path)]).output
    done = runner.invoke(app, ["study", str(tmp_path), str(tmp_path), "--output", str(tmp_path / "s")])
    assert done.exit_code == 2 and "name one folder" in done.output
