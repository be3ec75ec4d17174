"""What an evaluator does with the page of a study, in Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from cldistill_plugins.evaluation.study.key import PAGE

pytestmark = pytest.mark.slow

PHONE = (390, 844)


def test_it_opens_without_errors_and_asks_for_nothing_else(evaluator: Any) -> None:
    page = evaluator.page
    assert page.errors() == []
    assert [Path(url).name for url in page.requests()] == [PAGE]
    assert evaluator.title == "Which picture is best?"


def test_answers_survive_a_reload(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    for question in ("quality", "consistency", "style"):
        evaluator.choose(question, "C")
    given = evaluator.checked
    page.find("#forward").click()
    evaluator.choose("quality", "B")
    half = evaluator.checked
    page.driver.refresh()
    assert evaluator.title == "Set 2 of 5"
    assert evaluator.checked == half
    page.find("#back").click()
    assert evaluator.checked == given
    assert len(given) == 3
    assert page.find("#progress-text").text == "1 of 5 answered"


def test_a_whole_set_with_the_keyboard(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.press("b", "a", "d")
    letters = page.js("return [...document.querySelectorAll('#answers input:checked')].map((i) => i.dataset.letter)")
    assert letters == ["B", "A", "D"]
    evaluator.press(Keys.ARROW_RIGHT)
    assert evaluator.title == "Set 2 of 5"
    evaluator.press(Keys.ARROW_LEFT)
    assert evaluator.title == "Set 1 of 5"
    page.find("[name=style]:checked").send_keys(Keys.ARROW_LEFT)
    assert page.find("[name=style]:checked").get_attribute("data-letter") == "C"
    assert evaluator.title == "Set 1 of 5", "an arrow inside the choices chooses"


def test_an_open_question_is_pointed_at(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.choose("quality", "A")
    page.find("#forward").click()
    assert evaluator.title == "Set 1 of 5"
    missing = page.js("return [...document.querySelectorAll('fieldset.missing')].map((f) => f.dataset.question)")
    assert missing == ["consistency", "style"]
    assert page.driver.switch_to.active_element.get_attribute("name") == "consistency"


def test_a_picture_is_enlarged_and_compared_in_place(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.press("z")
    assert page.find("#zoom").is_displayed()
    assert page.find("#zoom-title").text == "The source picture"
    evaluator.press(Keys.ARROW_RIGHT)
    assert page.find("#zoom-title").text == "Attempt A"
    assert page.pixels("#zoom-picture").tobytes() == page.pixels('#candidates img[data-letter="A"]').tobytes()
    evaluator.press(Keys.ESCAPE)
    assert not page.find("#zoom").is_displayed()
    assert evaluator.title == "Set 1 of 5"


def test_unfinished_sets_are_shown_at_the_end(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.like("bilby")
    assert evaluator.title == "Thank you"
    page.js("""
        const name = Object.keys({...localStorage})[0], state = JSON.parse(localStorage[name]);
        delete state.answers[state.order[2]].style;
        localStorage[name] = JSON.stringify(state);""")
    page.driver.refresh()
    assert evaluator.title == "Nearly done"
    pale = page.js("return [...document.querySelectorAll('#overview button:not(.done)')].map((b) => b.ariaLabel)")
    assert pale == ["Set 3, not answered"]
    page.find("#overview button:not(.done)").click()
    assert evaluator.title == "Set 3 of 5"
    assert set(evaluator.checked) == {"quality", "consistency"}


def test_another_evaluator_begins_anew_on_the_same_machine(evaluator: Any) -> None:
    page = evaluator.page
    evaluator.begin()
    evaluator.press("a", "a", "a")
    page.js("document.getElementById('restart').click()")
    page.driver.switch_to.alert.accept()
    page.wait("document.documentElement.dataset.ready && !document.getElementById('welcome').hidden")
    assert evaluator.title == "Which picture is best?"
    assert page.js("return localStorage.length") == 0


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(evaluator: Any, colours: str) -> None:
    page = evaluator.page
    page.screen(PHONE, colours, touch=True)
    evaluator.arrive()
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    assert page.js(wide) == [390, 390]
    evaluator.begin()
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
