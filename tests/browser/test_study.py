"""The page of a blind study in a real Chromium: what an evaluator does, and what the organiser gets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cldistill.report.record import picture_path
from cldistill.study.answers import read_answers
from cldistill.study.key import PAGE, Key, StudySet
from cldistill.study.page import write_study
from cldistill.study.preferences import tally
from cldistill.testing.evaluation import write_evaluation

SYSTEMS = ("quokka", "wombat", "numbat", "bilby")
SETS = 5
PHONE = (390, 844)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("study") / "evaluation", systems=SYSTEMS, size=64)


@pytest.fixture(scope="module")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    output = tmp_path_factory.mktemp("study") / "study"
    return output / PAGE, write_study(folder, output, sets=SETS)


@pytest.fixture
def page(browser: Any, study: tuple[Path, Key]) -> Any:
    """The page as somebody sees it for the first time."""
    return fresh(browser, study[0])


def fresh(browser: Any, file: Path) -> Any:
    browser.open(file)
    browser.js("localStorage.clear()")
    browser.open(file)
    browser.wait_js("const look = () => document.documentElement.dataset.ready ? done() : setTimeout(look, 10); look()")
    return browser


def find(page: Any, selector: str) -> Any:
    return page.driver.find_element(By.CSS_SELECTOR, selector)


def title(page: Any) -> str:
    return str(page.js("return [...document.querySelectorAll('h1')].find((h) => h.checkVisibility()).textContent"))


def begin(page: Any, name: str = "Ann") -> None:
    find(page, "#name").send_keys(name, Keys.ENTER)


def key_press(page: Any, *keys: str) -> None:
    for key in keys:
        page.driver.switch_to.active_element.send_keys(key)


def set_on_screen(page: Any, key: Key) -> StudySet:
    tokens = page.js("return [...document.querySelectorAll('[name=quality]')].map((input) => input.value)")
    return next(one for one in key.sets if set(one.candidates) == set(tokens))


def checked(page: Any) -> dict[str, str]:
    found: dict[str, str] = page.js(
        "return Object.fromEntries([...document.querySelectorAll('#answers input:checked')].map((i) => [i.name, i.value]))"
    )
    return found


def answer_all(page: Any, key: Key, taste: Mapping[str, Callable[[StudySet], str]]) -> None:
    """Answer every set as somebody would whose favourite system a question is ``taste[question](set)``."""
    for _ in key.sets:
        one = set_on_screen(page, key)
        tokens = {system: token for token, system in one.candidates.items()}
        for question, favourite in taste.items():
            page.js(f"document.querySelector('[name={question}][value=\"{tokens[favourite(one)]}\"]').click()")
        find(page, "#forward").click()


def save(page: Any) -> Path:
    """Press the button, and return the file that came down."""
    before = set(page.downloads.iterdir())
    find(page, "#save").click()
    for _ in range(500):
        new = [path for path in set(page.downloads.iterdir()) - before if path.suffix == ".json"]
        if new:
            return Path(new[0])
        time.sleep(0.02)
    raise AssertionError("no file came down")


def test_it_opens_without_errors_and_asks_for_nothing_else(page: Any) -> None:
    assert page.errors() == []
    assert [Path(url).name for url in page.requests()] == [PAGE]
    assert title(page) == "Which picture is best?"


def test_no_system_can_be_read_anywhere(page: Any, study: tuple[Path, Key]) -> None:
    begin(page)
    answer_all(page, study[1], {q.name: lambda one: "numbat" for q in study[1].questions})
    seen = page.driver.page_source + json.dumps(page.js("return {...localStorage}")) + study[0].read_text()
    for word in (*SYSTEMS, "scene-"):
        assert word not in seen.lower(), word
    assert page.js("return [...document.images].filter((i) => i.title || /quokka|wombat/i.test(i.alt)).length") == 0


def test_the_candidates_are_the_keys_pictures(page: Any, study: tuple[Path, Key], folder: Path) -> None:
    begin(page)
    one = set_on_screen(page, study[1])
    for letter in "ABCD":
        token = find(page, f'[name=quality][data-letter="{letter}"]').get_attribute("value")
        with Image.open(picture_path(folder, one.candidates[token], one.effect, one.picture)) as own:
            assert page.pixels(f'#candidates img[data-letter="{letter}"]').tobytes() == own.convert("RGB").tobytes()
    with Image.open(picture_path(folder, "source", one.effect, one.picture)) as own:
        assert page.pixels("#source").tobytes() == own.convert("RGB").tobytes()
    assert find(page, "#example").is_displayed()


def test_answers_survive_a_reload(page: Any) -> None:
    begin(page)
    for question in ("quality", "consistency", "style"):
        find(page, f'[name={question}][data-letter="C"]').click()
    given = checked(page)
    find(page, "#forward").click()
    find(page, '[name=quality][data-letter="B"]').click()
    half = checked(page)
    page.driver.refresh()
    assert title(page) == f"Set 2 of {SETS}"
    assert checked(page) == half
    find(page, "#back").click()
    assert checked(page) == given
    assert len(given) == 3
    assert find(page, "#progress-text").text == f"1 of {SETS} answered"


def test_a_whole_set_with_the_keyboard(page: Any) -> None:
    begin(page)
    key_press(page, "b", "a", "d")
    letters = page.js("return [...document.querySelectorAll('#answers input:checked')].map((i) => i.dataset.letter)")
    assert letters == ["B", "A", "D"]
    key_press(page, Keys.ARROW_RIGHT)
    assert title(page) == f"Set 2 of {SETS}"
    key_press(page, Keys.ARROW_LEFT)
    assert title(page) == f"Set 1 of {SETS}"
    find(page, "[name=style]:checked").send_keys(Keys.ARROW_LEFT)
    assert find(page, "[name=style]:checked").get_attribute("data-letter") == "C"
    assert title(page) == f"Set 1 of {SETS}", "an arrow inside the choices chooses"


def test_an_open_question_is_pointed_at(page: Any) -> None:
    begin(page)
    find(page, '[name=quality][data-letter="A"]').click()
    find(page, "#forward").click()
    assert title(page) == f"Set 1 of {SETS}"
    missing = page.js("return [...document.querySelectorAll('fieldset.missing')].map((f) => f.dataset.question)")
    assert missing == ["consistency", "style"]
    assert page.driver.switch_to.active_element.get_attribute("name") == "consistency"


def test_a_picture_is_enlarged_and_compared_in_place(page: Any) -> None:
    begin(page)
    key_press(page, "z")
    assert find(page, "#zoom").is_displayed()
    assert find(page, "#zoom-title").text == "The source picture"
    key_press(page, Keys.ARROW_RIGHT)
    assert find(page, "#zoom-title").text == "Attempt A"
    assert page.pixels("#zoom-picture").tobytes() == page.pixels('#candidates img[data-letter="A"]').tobytes()
    key_press(page, Keys.ESCAPE)
    assert not find(page, "#zoom").is_displayed()
    assert title(page) == f"Set 1 of {SETS}"


def test_evaluators_see_other_orders(page: Any, study: tuple[Path, Key]) -> None:
    kept = "return JSON.parse(Object.values({...localStorage})[0])"
    begin(page)
    first = page.js(kept)
    begin(fresh(page, study[0]), "Bob")
    second = page.js(kept)
    assert first["places"] != second["places"]
    assert first["evaluator"]["id"] != second["evaluator"]["id"]
    assert sorted(first["order"]) == sorted(second["order"]) == sorted(one.id for one in study[1].sets)


def test_unfinished_sets_are_shown_at_the_end(page: Any, study: tuple[Path, Key]) -> None:
    begin(page)
    answer_all(page, study[1], {q.name: lambda one: "bilby" for q in study[1].questions})
    assert title(page) == "Thank you"
    page.js("""
        const name = Object.keys({...localStorage})[0], state = JSON.parse(localStorage[name]);
        delete state.answers[state.order[2]].style;
        localStorage[name] = JSON.stringify(state);""")
    page.driver.refresh()
    assert title(page) == "Nearly done"
    pale = page.js("return [...document.querySelectorAll('#overview button:not(.done)')].map((b) => b.ariaLabel)")
    assert pale == ["Set 3, not answered"]
    find(page, "#overview button:not(.done)").click()
    assert title(page) == f"Set 3 of {SETS}"
    assert set(checked(page)) == {"quality", "consistency"}


def test_the_tally_recovers_what_evaluators_prefer(page: Any, study: tuple[Path, Key]) -> None:
    file, key = study
    special = key.sets[0].id
    files = []
    for name in ("Ann", "Bo & Chloé"):
        begin(fresh(page, file), name)
        answer_all(
            page,
            key,
            {
                "quality": lambda one: "numbat",
                "consistency": lambda one: "quokka" if one.id == special else "bilby",
                "style": lambda one, ann=name == "Ann": "numbat" if ann else "wombat",
            },
        )
        files.append(save(page))
    assert [path.name for path in files] == ["answers-Ann.json", "answers-Bo-Chloe.json"]
    answers = read_answers(key, files)
    assert [one.evaluator.name for one in answers] == ["Ann", "Bo & Chloé"]
    found = tally(key, answers, draws=100).questions
    assert found["quality"].shares["numbat"].share == 1.0
    assert found["quality"].votes == 2 * SETS
    assert found["consistency"].shares["bilby"].votes == 2 * (SETS - 1)
    assert found["consistency"].shares["quokka"].votes == 2
    assert found["consistency"].kappa == pytest.approx(1.0)
    assert {name: share.share for name, share in found["style"].shares.items()} == {
        "quokka": 0.0, "wombat": 0.5, "numbat": 0.5, "bilby": 0.0,
    }  # fmt: skip


def test_another_evaluator_begins_anew_on_the_same_machine(page: Any) -> None:
    begin(page)
    key_press(page, "a", "a", "a")
    page.js("document.getElementById('restart').click()")
    page.driver.switch_to.alert.accept()
    page.wait_js("const look = () => document.documentElement.dataset.ready ? done() : setTimeout(look, 10); look()")
    assert title(page) == "Which picture is best?"
    assert page.js("return localStorage.length") == 0


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser: Any, study: tuple[Path, Key], colours: str) -> None:
    browser.screen(PHONE, colours, touch=True)
    page = fresh(browser, study[0])
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    assert page.js(wide) == [390, 390]
    begin(page)
    assert page.js(wide) == [390, 390]
    widths = page.js(
        "return [...document.querySelectorAll('#candidates img')].map((i) => i.getBoundingClientRect().width)"
    )
    assert min(widths) > 150
    targets = page.js(
        "return [...document.querySelectorAll('.choices label')].map((l) => l.getBoundingClientRect().height)"
    )
    assert min(targets) >= 40
    assert page.errors() == []
