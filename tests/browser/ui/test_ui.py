"""``cldistill ui`` as somebody uses it: a picture, effects, before and after under the slider, keyboard, phone, saving."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cldistill_plugins.ui.studio import Studio

PHONE = (390, 844)
DONE = "document.querySelector('#result .status.done')"
NO_WIDER = "return document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    open_page(browser, address)
    return browser


def open_page(browser: Any, address: str) -> None:
    browser.driver.get("about:blank")
    browser.errors(), browser.requests()
    browser.driver.get(address)
    browser.wait("document.querySelector('#go') && document.querySelector('#effects input') && "
                 "document.querySelector('#picture input[type=file]') && document.querySelector('#result .empty')")  # fmt: skip


def give(browser: Any, photo: Path) -> None:
    browser.find("#picture input[type=file]").send_keys(str(photo))
    browser.wait("document.querySelector('#picture img')")


def tile(browser: Any, name: str) -> Any:
    (label,) = [each for each in browser.driver.find_elements(By.CSS_SELECTOR, "#effects label") if each.text == name]
    return label.find_element(By.TAG_NAME, "input")


def clip(browser: Any) -> str:
    return str(browser.js("return getComputedStyle(document.querySelector('.panel:not([hidden]) .before')).clipPath"))


@pytest.mark.slow
def test_a_picture_with_two_effects(page: Any, studio: Studio, photo: Path) -> None:
    assert "2 effects in one LoRA, 4 steps" in page.find("#head").text
    assert tile(page, "invert").is_selected() and not tile(page, "soften").is_selected()
    give(page, photo)
    tile(page, "soften").click()
    page.wait("document.querySelector('#how')?.checkVisibility()")
    page.find("#seed input").send_keys(Keys.CONTROL + "a" + Keys.NULL + "7" + Keys.TAB)
    page.find("#go").click()
    page.wait(DONE)
    tabs = [each.text for each in page.driver.find_elements(By.CSS_SELECTOR, "#result [role=tab]")]
    assert tabs == ["invert", "soften"]
    assert page.find("#result .status").text == "2 pictures are ready."
    caption = page.find(".panel:not([hidden]) figcaption").text.split("\n")
    assert caption == ["soften", "24 × 12 · 4 steps · seed 7", "Save"]
    shown = page.pixels(".panel:not([hidden]) .after")
    expected = studio.mounted.collection(studio.collection).generate(photo, "soften", seed=7)
    assert np.array_equal(shown, expected)
    assert np.array_equal(page.pixels(".panel:not([hidden]) .before"), Image.open(photo).convert("RGB"))
    assert page.errors() == []
    outside = [url for url in page.requests() if "://127.0.0.1:" not in url and not url.startswith("chrome")]
    assert outside == []


@pytest.mark.slow
def test_a_picture_that_is_dropped_and_other_steps(page: Any, studio: Studio, photo: Path) -> None:
    dropped = (
        "const bytes = Uint8Array.from(atob(arguments[0]), (letter) => letter.charCodeAt(0));"
        "const carried = new DataTransfer();"
        "carried.items.add(new File([bytes], arguments[1], {type: 'image/png'}));"
        "const zone = document.querySelector('#picture input[type=file]').closest('button, [role=button], .wrap, div');"
        "for (const name of ['dragenter', 'dragover', 'drop'])"
        "  zone.dispatchEvent(new DragEvent(name, {dataTransfer: carried, bubbles: true, cancelable: true}));"
    )
    page.js(dropped, base64.b64encode(photo.read_bytes()).decode(), photo.name)
    page.wait("document.querySelector('#picture img')")
    page.find("#steps input").send_keys(Keys.CONTROL + "a" + Keys.NULL + "2" + Keys.TAB)
    page.find("#go").click()
    page.wait(DONE)
    assert page.find(".panel:not([hidden]) figcaption").text.split("\n")[1] == "24 × 12 · 2 steps · seed 0"
    expected = studio.mounted.collection(studio.collection).generate(photo, "invert", seed=0, steps=2)
    assert np.array_equal(page.pixels(".panel:not([hidden]) .after"), expected)
    assert not np.array_equal(expected, studio.mounted.collection(studio.collection).generate(photo, "invert", seed=0))


@pytest.mark.slow
def test_the_slider_shows_more_or_less_of_the_picture_before(page: Any, photo: Path) -> None:
    give(page, photo)
    page.find("#go").click()
    page.wait(DONE)
    assert clip(page) == "inset(0px 50% 0px 0px)"
    box = page.js("const b = document.querySelector('.compare').getBoundingClientRect(); return [b.width, b.height]")
    assert box[0] / box[1] == pytest.approx(2, rel=0.05)
    page.find(".compare input").click()  # the middle
    page.set(".compare input", "80")
    assert clip(page) == "inset(0px 20% 0px 0px)"


@pytest.mark.slow
def test_all_of_it_by_keyboard(page: Any, photo: Path, studio: Studio) -> None:
    give(page, photo)
    page.js("document.querySelector('#effects input').focus()")
    keys = page.driver.switch_to.active_element.send_keys
    keys(Keys.SPACE)  # invert off
    assert not tile(page, "invert").is_selected()
    keys(Keys.TAB)
    page.driver.switch_to.active_element.send_keys(Keys.SPACE)  # soften on
    assert tile(page, "soften").is_selected()
    for _ in range(8):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        if page.js("return document.activeElement.id === 'go' || document.activeElement.closest('#go') !== null"):
            break
    assert page.driver.switch_to.active_element.text == "Apply"
    assert page.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(DONE)
    page.driver.switch_to.active_element.send_keys(Keys.TAB)
    slider = page.driver.switch_to.active_element
    assert slider.get_attribute("aria-label") == "Before and after: soften"
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert clip(page) == "inset(0px 48% 0px 0px)"
    slider.send_keys(Keys.HOME)
    assert clip(page) == "inset(0px 100% 0px 0px)"
    slider.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Save"


@pytest.mark.slow
def test_arrow_keys_choose_among_results_and_the_slider_stays(page: Any, photo: Path) -> None:
    give(page, photo)
    tile(page, "soften").click()
    page.find("#go").click()
    page.wait(DONE)
    page.set(".panel:not([hidden]) .compare input", "30")
    page.js("document.querySelector('#result [role=tab][aria-selected=true]').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert page.driver.switch_to.active_element.text == "invert"
    assert page.find(".panel:not([hidden]) b").text == "invert"
    assert clip(page) == "inset(0px 70% 0px 0px)"
    page.driver.switch_to.active_element.send_keys(Keys.END)
    assert page.find(".panel:not([hidden]) b").text == "soften"


@pytest.mark.slow
def test_all_on_one_picture(page: Any, photo: Path, studio: Studio) -> None:
    give(page, photo)
    tile(page, "soften").click()
    page.wait("document.querySelector('#how')?.checkVisibility()")
    page.find("#how label:nth-of-type(2) input").click()
    page.find("#go").click()
    page.wait(DONE)
    assert page.find(".panel b").text == "invert + soften"
    expected = studio.mounted.collection(studio.collection).generate(photo, ["invert", "soften"], seed=0)
    assert np.array_equal(page.pixels(".panel .after"), expected)


@pytest.mark.slow
def test_saving(page: Any, photo: Path, studio: Studio) -> None:
    give(page, photo)
    page.find("#go").click()
    page.wait(DONE)
    page.find(".panel .save").click()
    saved = page.downloads / "my-café-1--invert--seed-0.png"
    until = time.monotonic() + 30
    while not saved.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    expected = studio.mounted.collection(studio.collection).generate(photo, "invert", seed=0)
    assert np.array_equal(Image.open(saved), expected)


@pytest.mark.slow
def test_what_is_missing_or_broken_is_said_on_the_page(page: Any, tmp_path: Path) -> None:
    page.find("#go").click()
    page.wait("document.querySelector('#result [role=alert]')")
    assert page.find("#result [role=alert]").text == "Drop a picture first, or choose one."
    give(page, _photo(tmp_path))
    tile(page, "invert").click()
    page.find("#go").click()
    page.wait("document.querySelector('#result [role=alert]')?.textContent.includes('effect')")
    assert page.find("#result [role=alert]").text == "Choose at least one effect."


@pytest.mark.slow
def test_on_a_phone_nothing_is_cut_off_and_the_result_comes_into_view(browser: Any, address: str, photo: Path) -> None:
    browser.screen(PHONE, touch=True)
    open_page(browser, address)
    assert browser.js(NO_WIDER)
    give(browser, photo)
    tile(browser, "soften").click()
    browser.js("document.querySelector('#go').scrollIntoView()")
    browser.find("#go").click()
    browser.wait(DONE)
    assert browser.js(NO_WIDER)
    browser.wait(
        "document.querySelector('.panel:not([hidden]) .compare').getBoundingClientRect().bottom <= innerHeight + 1"
    )
    width = browser.js("return document.querySelector('.panel:not([hidden]) .compare').getBoundingClientRect().width")
    assert width > 330
    hit = "return [...document.querySelectorAll(arguments[0])].map(each => each.getBoundingClientRect().height)"
    assert min(browser.js(hit, "#go, .panel:not([hidden]) .save, #dice")) >= 40  # what a finger hits


@pytest.mark.slow
def test_tiles_show_the_samples_that_there_are(browser: Any, address: str) -> None:
    open_page(browser, address)
    picture = (
        "return getComputedStyle(document.querySelectorAll('#effects label')[arguments[0]], '::before').backgroundImage"
    )
    assert browser.js(picture, 0).startswith('url("data:image/jpeg;base64,')
    assert browser.js(picture, 1) == "none"


def _photo(folder: Path) -> Path:
    Image.new("RGB", (24, 24), (9, 99, 9)).save(folder / "green.png")
    return folder / "green.png"
