"""General instructions: every line a function of its key, so that a file can be stopped, resumed and extended."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cldistill.data.items import general_items
from cldistill.errors import DataError, EndpointError, Stopped
from cldistill.progress.signals import never
from cldistill.progress.stages import SilentStages
from cldistill.testing import picture, write_pictures
from cldistill_plugins.instructions.request import CATEGORIES, InstructionRequest
from cldistill_plugins.instructions.write import JOURNAL, InstructionPlan, WrittenInstructions, write_instructions


@dataclass
class Maker:
    """Says what it is asked, and refuses, fails or runs in parallel as a test wants."""

    identity: str = "first"
    concurrency: int = 1
    fail: Callable[[InstructionRequest], bool] = lambda request: False
    refuse: Callable[[InstructionRequest], bool] = lambda request: False
    asked: list[InstructionRequest] = field(default_factory=list)

    def instruction(self, request: InstructionRequest) -> str | None:
        self.asked.append(request)
        if self.fail(request):
            raise EndpointError("the server is gone")
        if self.refuse(request):
            return None
        return f"{request.category} «{random.Random(request.seed).random():.6f}»"


@pytest.fixture
def plan(tmp_path: Path) -> InstructionPlan:
    return InstructionPlan(write_pictures(tmp_path / "pictures", 6), tmp_path / "out" / "general.jsonl", per_picture=3)


def write(plan: InstructionPlan, maker: Maker, stop: Callable[[], bool] = never) -> WrittenInstructions:
    return write_instructions(plan, maker, SilentStages(), stop)


def rows(plan: InstructionPlan) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plan.output.read_text(encoding="utf-8").splitlines()]


def test_the_file_is_what_the_general_stream_reads(plan: InstructionPlan) -> None:
    outcome = write(plan, Maker())
    items = general_items(plan.images, plan.output)
    assert [item.sources[0].name for item in items] == [f"{n:03d}.png" for n in range(6) for _ in range(3)]
    assert all(item.prompt.startswith(CATEGORIES) for item in items)
    assert outcome.written == 18 and outcome.kept == outcome.refused == 0
    assert sum(outcome.categories.values()) == 18 and set(outcome.categories) == set(CATEGORIES)
    assert [path.name for path in plan.output.parent.iterdir()] == ["general.jsonl"]


def test_categories_and_seeds_are_drawn_by_picture_and_number_alone(plan: InstructionPlan) -> None:
    write(plan, Maker())
    before = {row["key"]: row for row in rows(plan)}
    picture(7).save(plan.images / "000-first.png")
    maker = Maker()
    outcome = write(plan, maker)
    after = {row["key"]: row for row in rows(plan)}
    assert before.items() <= after.items() and len(after) == 21
    assert outcome.kept == 18 and {request.picture.name for request in maker.asked} == {"000-first.png"}
    other = replace(plan, seed=1, fresh=True)
    write(other, Maker())
    assert not {row["key"] for row in rows(other)} & after.keys()
    only = replace(plan, categories=("style",), fresh=True)
    write(only, Maker())
    assert {row["category"] for row in rows(only)} == {"style"}


def test_a_picture_gets_every_category_before_one_comes_again(plan: InstructionPlan) -> None:
    write(replace(plan, per_picture=8), Maker())
    by_picture = [[row["category"] for row in rows(plan)[start : start + 8]] for start in range(0, 48, 8)]
    assert all(set(turn[:4]) == set(turn[4:]) == set(CATEGORIES) for turn in by_picture)
    assert len({tuple(turn) for turn in by_picture}) > 1


def test_a_changed_picture_is_asked_about_again(plan: InstructionPlan) -> None:
    write(plan, Maker())
    picture(99).save(plan.images / "002.png")
    with pytest.raises(DataError, match="3 lines that these pictures and options do not make"):
        write(plan, Maker())
    assert write(replace(plan, fresh=True), Maker()).written == 18


@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_done_survives_a_failing_endpoint_and_a_stop(plan: InstructionPlan, workers: int) -> None:
    whole = replace(plan, output=plan.output.with_name("whole.jsonl"))
    write(whole, Maker())
    late = Maker(fail=lambda request: request.picture.name == "003.png", concurrency=workers)
    with pytest.raises(EndpointError, match=r"the server is gone\n.*journal; the same command goes on"):
        write(plan, late)
    assert not plan.output.exists()
    journal = plan.output.with_name(plan.output.name + JOURNAL)
    with journal.open("a") as file:
        file.write('{"key": "cut off by a cra')
    done = len(journal.read_text().splitlines()) - 1
    assert 9 <= done < 18
    with pytest.raises(Stopped):
        write(plan, Maker(), stop=lambda: True)
    last = Maker(concurrency=workers)
    outcome = write(plan, last)
    assert outcome.kept == done + 1 and len(last.asked) == 18 - outcome.kept
    assert plan.output.read_bytes() == whole.output.read_bytes()
    assert not journal.exists()


def test_the_refused_are_counted_left_out_and_asked_again(plan: InstructionPlan) -> None:
    outcome = write(plan, Maker(refuse=lambda request: request.picture.name == "001.png"))
    assert (outcome.written, outcome.refused) == (15, 3)
    again = Maker()
    assert write(plan, again).written == 18 and len(again.asked) == 3


def test_nothing_is_asked_twice(plan: InstructionPlan) -> None:
    write(plan, Maker())
    maker = Maker()
    assert write(plan, maker).kept == 18 and not maker.asked


@pytest.mark.parametrize("text", ['{"image": "000.png", "instruction": "by hand"}\n', "not json\n", "[" * 200_000])
def test_foreign_lines_are_not_written_over(plan: InstructionPlan, text: str) -> None:
    plan.output.parent.mkdir()
    plan.output.write_text(text)
    with pytest.raises(DataError, match=r"another file, or replace it with --fresh"):
        write(plan, Maker())
    assert plan.output.read_text() == text
    assert write(replace(plan, fresh=True), Maker()).written == 18


def test_another_maker_is_another_file(plan: InstructionPlan) -> None:
    write(plan, Maker())
    with pytest.raises(DataError, match="18 lines"):
        write(plan, Maker(identity="second"))


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        write(InstructionPlan(tmp_path / "empty", tmp_path / "x.jsonl"), Maker())


def test_only_the_first_pictures(plan: InstructionPlan) -> None:
    write(replace(plan, pictures=2), Maker())
    assert {row["image"] for row in rows(plan)} == {"000.png", "001.png"}
