"""``report.html`` in a real Chromium, opened from disk: plots, tables, themes, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

PHONE, WIDE = (390, 844), (1440, 900)
SCROLL_BAR = 15
"""Its width in pixels on a desktop; a phone lays it over the page."""


def column(page: Any, number: int) -> list[str]:
    """Return what the table of effects sorts a column by, as shown from top to bottom."""
    return page.js(
        "return [...document.querySelectorAll(`#scores tbody td:nth-child(${arguments[0]})`)]"
        ".map((cell) => cell.dataset.order ?? cell.textContent)",
        number,
    )


def wait_sorted(page: Any, number: int, direction: str) -> None:
    """Wait until the table says that it is sorted by a column: DataTables sorts after the event, not in it."""
    heading = f"document.querySelector('#scores thead th:nth-child({number})')"
    page.wait(f"{heading}.ariaSort === arguments[0]", direction)


def test_it_opens_without_errors_and_asks_for_nothing_else(open_report: Callable[[Path], Any], folder: Path) -> None:
    page = open_report(folder)
    assert page.errors() == []
    assert [Path(url).name for url in page.requests()] == ["report.html"]
    assert page.js("return document.title").startswith("drawn scenes")


def test_every_plot_is_drawn_with_its_description(page: Any) -> None:
    specs = len(json.loads(page.js("return document.getElementById('chart-specs').textContent")))
    assert specs == 3 + 1 + 1
    assert page.js("return document.querySelectorAll('[data-spec] svg').length") == specs
    spoken = page.js("return [...document.querySelectorAll('[data-spec]')].map((plot) => plot.ariaLabel)")
    assert all(spoken)


def test_a_heading_sorts_by_the_figure_and_not_by_its_text(page: Any) -> None:
    heading = page.find("#scores thead th:nth-child(6)")
    heading.click()
    wait_sorted(page, 6, "ascending")
    values = [float(value) for value in column(page, 6)]
    assert values == sorted(values)
    heading.click()
    wait_sorted(page, 6, "descending")
    values = [float(value) for value in column(page, 6)]
    assert values == sorted(values, reverse=True)


def test_a_heading_sorts_with_the_keyboard(page: Any) -> None:
    before = column(page, 1)
    page.js("document.querySelector('#scores thead th:nth-child(1) [tabindex], #scores thead th[tabindex]').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    wait_sorted(page, 1, "ascending")
    assert before != column(page, 1) == sorted(before)


def test_the_table_filters_by_system_kind_family_and_text(page: Any) -> None:
    page.set("#score-filters [name=system]", "lightning")
    assert column(page, 2) == ["Lightning"] * 8
    page.set("#score-filters [name=kind]", "stochastic")
    assert column(page, 1) == ["oil-paint", "vivid"]
    page.set("#score-filters [name=kind]", "")
    page.set("#score-filters [name=text]", "apply the style")
    assert column(page, 1) == ["old-photo", "poster"]
    page.set("#score-filters [name=text]", "")
    page.set("#score-filters [name=system]", "")
    page.set("#score-filters [name=family]", "another-effect")
    shown = page.js("return [...document.querySelectorAll('#scores tbody tr')].map((row) => row.textContent)")
    assert 0 < len(shown) < 24
    assert all("Another effect" in text for text in shown)


def test_an_effect_of_the_table_opens_in_the_viewer(page: Any) -> None:
    page.find('#scores button.look[data-effect="poster"][data-system="lightning"]').click()
    assert page.find("#case-count").text == "3 of 24 cases"
    assert page.find("#case-title").text.startswith("poster")
    assert page.find("#right").get_attribute("value") == "lightning"
    assert page.driver.switch_to.active_element.get_attribute("id") == "cases"


def test_everything_that_acts_is_reached_with_tab_and_has_a_name(page: Any) -> None:
    nameless = page.js("""
        return [...document.querySelectorAll("button, select, input, [tabindex='0']")]
          .filter((e) => e.checkVisibility())
          .filter((e) => !(e.getAttribute("aria-label") || e.closest("label") || e.textContent.trim()
                           || e.querySelector("img[alt]") || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 120))""")
    assert nameless == []
    assert (
        page.js('return document.querySelectorAll(\'[tabindex]:not([tabindex="0"]):not([tabindex="-1"])\').length') == 0
    )


def test_light_and_dark(browser: Any, open_report: Callable[[Path], Any], folder: Path) -> None:
    browser.screen((1280, 900), "dark")
    page = open_report(folder)

    def ground() -> str:
        return page.js("return getComputedStyle(document.body).backgroundColor")

    def label() -> str:
        return page.js("return document.querySelector('[data-spec] svg text').getAttribute('fill')")

    dark = (ground(), label())
    page.find("#theme").click()
    page.wait_js("setTimeout(done, 600)")
    assert page.find("#theme").text == "Dark"
    light = (ground(), label())
    assert dark[0] == "rgb(19, 22, 26)" and light[0] == "rgb(255, 255, 255)"
    assert dark[1] != light[1], "the plots follow"


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "wide"])
def test_nothing_is_cut_off_and_the_page_scrolls_in_one_direction_only(
    browser: Any, open_report: Callable[[Path], Any], folder: Path, colours: str, size: tuple[int, int]
) -> None:
    browser.screen(size, colours, touch=size == PHONE)
    page = open_report(folder)
    assert page.js("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]") in (
        [size[0], size[0]], [size[0] - SCROLL_BAR, size[0] - SCROLL_BAR],
    )  # fmt: skip
    widths = page.js(
        "return [...document.querySelectorAll('#columns img')].map((i) => i.getBoundingClientRect().width)"
    )
    assert min(widths) > 120
    beyond = page.js(
        "return [...document.querySelectorAll('main *')]"
        ".filter((e) => e.checkVisibility() && !e.closest('svg, .slider, .hidden-text')"
        " && e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == [], "no table hides a column"
    cut = page.js(
        "return [...document.querySelectorAll('main *')]"
        ".filter((e) => e.checkVisibility() && !e.closest('svg, .slider, .hidden-text')"
        " && ['hidden', 'clip'].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert cut == [], "no text ends in the middle of a word"
    assert page.errors() == []
