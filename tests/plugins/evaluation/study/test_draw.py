"""Which sets are drawn, and that nothing about them can be guessed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cldistill.errors import DataError
from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.record import Evaluation, picture_path, read_evaluation
from cldistill_plugins.evaluation.study.draw import choose_systems, draw_sets

SYSTEMS = ("base", "lightning", "ours")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("draw") / "evaluation", systems=SYSTEMS, pictures=4, size=16)


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> Evaluation:
    return read_evaluation(folder)


def test_sets_are_spread_over_the_effects(folder: Path, evaluation: Evaluation) -> None:
    sets = draw_sets(folder, evaluation, SYSTEMS, 20, seed=0)
    assert len({(one.effect, one.picture) for one in sets}) == 20
    assert sorted(Counter(one.effect for one in sets).values()) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_the_seed_decides_what_is_shown_and_nothing_else(folder: Path, evaluation: Evaluation) -> None:
    first, again, other = (draw_sets(folder, evaluation, SYSTEMS, 12, seed) for seed in (3, 3, 4))
    assert {(one.effect, one.picture) for one in first} == {(one.effect, one.picture) for one in again}
    assert {(one.effect, one.picture) for one in first} != {(one.effect, one.picture) for one in other}
    assert not {one.id for one in first} & {one.id for one in again}
    assert not {name for one in first for name in one.candidates} & {name for one in again for name in one.candidates}


def test_tokens_are_in_their_own_order_and_not_in_the_systems(folder: Path, evaluation: Evaluation) -> None:
    sets = draw_sets(folder, evaluation, SYSTEMS, 32, seed=0)
    assert all(list(one.candidates) == sorted(one.candidates) for one in sets)
    assert all(sorted(one.candidates.values()) == sorted(SYSTEMS) for one in sets)
    assert [one.id for one in sets] == sorted(one.id for one in sets)
    # One order for all 32 sets has a chance of 6^-31.
    assert len({tuple(one.candidates.values()) for one in sets}) > 1


def test_a_set_needs_a_picture_of_every_system(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "gap", ("ink", "grey"), SYSTEMS, pictures=2, size=16)
    picture_path(folder, "ours", "ink", "scene-0").unlink()
    evaluation = read_evaluation(folder)
    assert ("ink", "scene-0") not in {(s.effect, s.picture) for s in draw_sets(folder, evaluation, SYSTEMS, 3, 0)}
    with pytest.raises(DataError, match=r"--sets 4: 3 pairs of effect and picture have an output .* ask for 1 to 3"):
        draw_sets(folder, evaluation, SYSTEMS, 4, 0)


def test_a_folder_without_pictures_says_so(folder: Path, evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="were the pictures moved away"):
        draw_sets(tmp_path, evaluation, SYSTEMS, 1, 0)


def test_systems_are_chosen_by_name(evaluation: Evaluation) -> None:
    assert [row.name for row in choose_systems(evaluation, None)] == list(SYSTEMS)
    assert [row.name for row in choose_systems(evaluation, ["ours", "base"])] == ["ours", "base"]
    with pytest.raises(DataError, match="no such system; did you mean 'lightning'"):
        choose_systems(evaluation, ["lightening", "ours"])
    with pytest.raises(DataError, match="more than once"):
        choose_systems(evaluation, ["ours", "ours"])
    with pytest.raises(DataError, match="compares 2 to 6 systems, and these are 1"):
        choose_systems(evaluation, ["ours"])
