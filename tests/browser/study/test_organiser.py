"""What the organiser of a study relies on: nobody can see which system is which, and the answers come back whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cldistill_plugins.evaluation.report.record import picture_path
from cldistill_plugins.evaluation.study.answers import read_answers
from cldistill_plugins.evaluation.study.preferences import tally

pytestmark = pytest.mark.slow

SYSTEMS = ("quokka", "wombat", "numbat", "bilby")


def test_no_system_can_be_read_anywhere(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.like("numbat")
    seen = page.driver.page_source + json.dumps(page.js("return {...localStorage}")) + evaluator.file.read_text()
    for word in (*SYSTEMS, "scene-"):
        assert word not in seen.lower(), word
    assert page.js("return [...document.images].filter((i) => i.title || /quokka|wombat/i.test(i.alt)).length") == 0


def test_the_candidates_are_the_keys_pictures(evaluator: Any, folder: Path) -> None:
    page = evaluator.page
    evaluator.begin()
    one = evaluator.set_on_screen()
    for letter in "ABCD":
        token = page.find(f'[name=quality][data-letter="{letter}"]').get_attribute("value")
        with Image.open(picture_path(folder, one.candidates[token], one.effect, one.picture)) as own:
            assert page.pixels(f'#candidates img[data-letter="{letter}"]').tobytes() == own.convert("RGB").tobytes()
    with Image.open(picture_path(folder, "source", one.effect, one.picture)) as own:
        assert page.pixels("#source").tobytes() == own.convert("RGB").tobytes()
    assert page.find("#example").is_displayed()


def test_evaluators_see_other_orders(evaluator: Any) -> None:
    page = evaluator.page
    kept = "return JSON.parse(Object.values({...localStorage})[0])"
    evaluator.begin()
    first = page.js(kept)
    evaluator.arrive()
    evaluator.begin("Bob")
    second = page.js(kept)
    assert first["places"] != second["places"]
    assert first["evaluator"]["id"] != second["evaluator"]["id"]
    assert sorted(first["order"]) == sorted(second["order"]) == sorted(one.id for one in evaluator.key.sets)


def test_the_tally_recovers_what_evaluators_prefer(evaluator: Any) -> None:
    key = evaluator.key
    special = key.sets[0].id
    files = []
    for name in ("Ann", "Bo & Chloé"):
        evaluator.arrive()
        evaluator.begin(name)
        evaluator.answer_all(
            {
                "quality": lambda one: "numbat",
                "consistency": lambda one: "quokka" if one.id == special else "bilby",
                "style": lambda one, ann=name == "Ann": "numbat" if ann else "wombat",
            }
        )
        files.append(evaluator.save())
    assert [path.name for path in files] == ["answers-Ann.json", "answers-Bo-Chloe.json"]
    answers = read_answers(key, files)
    assert [one.evaluator.name for one in answers] == ["Ann", "Bo & Chloé"]
    found = tally(key, answers, draws=100).questions
    assert found["quality"].shares["numbat"].share == 1.0
    assert found["quality"].votes == 2 * 5
    assert found["consistency"].shares["bilby"].votes == 2 * 4
    assert found["consistency"].shares["quokka"].votes == 2
    assert found["consistency"].kappa == pytest.approx(1.0)
    assert {name: share.share for name, share in found["style"].shares.items()} == {
        "quokka": 0.0, "wombat": 0.5, "numbat": 0.5, "bilby": 0.0,
    }  # fmt: skip
