"""The viewer of ``report.html`` in Chromium: the right pictures, in the right order, with mouse and keyboard."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat
from selenium.webdriver.common.keys import Keys

from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.html import write_report
from cldistill_plugins.evaluation.report.record import picture_path

pytestmark = pytest.mark.slow

SYSTEMS = ("base", "lightning", "ours")


def chosen(page: Any) -> tuple[str, str]:
    effect, key = page.js("return document.getElementById('case-title').textContent").split(" · ")
    return effect, key


def listed(page: Any) -> list[str]:
    return page.js("return [...document.querySelectorAll('#cases li')].map((item) => item.textContent)")


def distance(one: Image.Image, other: Image.Image) -> float:
    return max(ImageStat.Stat(ImageChops.difference(one, other.resize(one.size))).mean)


def own(folder: Path, name: str, effect: str, key: str) -> Image.Image:
    with Image.open(picture_path(folder, name, effect, key)) as found:
        return found.convert("RGB")


def test_bad_cases_come_first_and_are_tagged(page: Any, folder: Path) -> None:
    failures = json.loads((folder / "report.json").read_text())["failures"]

    def failing(text: str) -> int:
        return sum(text.startswith(f"{e}{k}") for pools in failures.values() for e, keys in pools.items() for k in keys)

    counts = [failing(text) for text in listed(page)]
    assert len(counts) == 24
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0 == counts[-1]
    effect, key = chosen(page)
    titles = {"blurred": "Blurred", "another-effect": "Another effect", "unchanged": "Unchanged"}
    captions = page.js("return [...document.querySelectorAll('#columns figcaption')].map((c) => c.textContent)")
    for system, caption in zip(SYSTEMS, captions[2:], strict=True):
        family = failures.get(system, {}).get(effect, {}).get(key)
        assert (titles[family] in caption) if family else caption == system.capitalize()


def test_the_viewer_shows_the_right_pictures(page: Any, folder: Path) -> None:
    for _ in range(3):
        effect, key = chosen(page)
        for name in ("source", "truth", *SYSTEMS):
            shown = page.pixels(f'#columns [data-column="{name}"] img')
            assert distance(shown, own(folder, name, effect, key)) < 12, (name, effect, key)
        page.find("#next").click()
    effect, key = chosen(page)
    assert distance(page.pixels('#columns [data-column="source"] img'), own(folder, "truth", "negative", key)) > 30


def test_the_viewer_filters(page: Any) -> None:
    page.set("#case-filters [name=effect]", "mirror")
    assert len(listed(page)) == 3
    assert all(text.startswith("mirror") for text in listed(page))
    page.set("#case-filters [name=effect]", "")
    page.set("#case-filters [name=kind]", "stochastic")
    assert {text.split("scene")[0] for text in listed(page)} == {"oil-paint", "vivid"}
    page.set("#case-filters [name=kind]", "")
    page.set("#case-filters [name=family]", "unchanged")
    unchanged = listed(page)
    assert unchanged and all("Unchanged" in text and "Another" not in text for text in unchanged)
    page.set("#case-filters [name=system]", "ours")
    assert len(listed(page)) < len(unchanged)
    page.find("#case-filters [type=reset]").click()
    page.wait_js("setTimeout(done, 50)")
    assert len(listed(page)) == 24


def test_the_viewer_orders_by_a_metric(page: Any, folder: Path) -> None:
    values = json.loads((folder / "report.json").read_text())["values"]["ours"]
    page.set("#case-filters [name=system]", "ours")
    page.set("#case-filters [name=order]", "truth_distance")
    effect, key = chosen(page)
    worst = max(max(metrics["truth_distance"]) for metrics in values.values())
    assert values[effect]["truth_distance"][int(key.removeprefix("scene-"))] == worst


def test_no_case_fits_is_said_and_no_error(page: Any) -> None:
    page.set("#case-filters [name=effect]", "grey")
    page.set("#case-filters [name=kind]", "stochastic")
    assert page.find("#case-count").text == "0 of 24 cases"
    assert not page.find("#stage").is_displayed()
    assert page.errors() == []


def test_the_slider_uncovers_one_picture_over_the_other(page: Any, folder: Path) -> None:
    effect, key = chosen(page)
    page.set("#left", "source")
    page.set("#right", "truth")
    frame = page.find("#slider")

    def seen(split: int) -> Image.Image:
        page.set("#slider input", str(split))
        page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", frame)
        picture = Image.open(io.BytesIO(frame.screenshot_as_png)).convert("RGB")
        width, height = picture.size  # a strip without the divider's knob and the captions
        return picture.crop((2, 2, width - 2, height // 3))

    left, right = own(folder, "source", effect, key), own(folder, "truth", effect, key)
    strip = (0, 0, left.width, left.height // 3)
    left, right = left.crop(strip), right.crop(strip)
    assert distance(left, right) > 30
    assert distance(seen(100), left) < 15 < 30 < distance(seen(0), left)
    assert distance(seen(0), right) < 15
    half = seen(50)
    box, small = (0, 0, half.width // 2 - 6, half.height), (0, 0, left.width // 2, left.height)
    assert distance(half.crop(box), left.crop(small)) < 15


def test_the_slider_moves_with_the_keyboard(page: Any) -> None:
    slider = page.find("#slider input")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.js("return document.getElementById('slider').style.getPropertyValue('--split')") == "52%"
    assert slider.get_attribute("aria-valuetext") == "52 % Truth, the rest Ours"


def test_a_click_on_a_picture_puts_it_under_the_slider(page: Any) -> None:
    page.find('#columns [data-column="lightning"]').click()
    assert page.find("#right").get_attribute("value") == "lightning"
    assert page.pixels("#slider img.under").tobytes() == page.pixels('[data-column="lightning"] img').tobytes()
    pressed = page.js("return [...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.dataset.column)")
    assert pressed == ["truth", "lightning"]


def test_the_list_works_with_the_keyboard(page: Any) -> None:
    cases = page.find("#cases")
    cases.send_keys(Keys.ARROW_DOWN)
    assert cases.get_attribute("aria-activedescendant") == "case-1"
    assert listed(page)[1].startswith("".join(chosen(page)))
    cases.send_keys(Keys.END)
    assert page.find("#case-place").text == "24 of 24"
    assert not page.find("#next").is_enabled()
    cases.send_keys(Keys.HOME, Keys.ARROW_UP)
    assert page.find("#case-place").text == "1 of 24"
    selected = page.js("return [...document.querySelectorAll('#cases [aria-selected=true]')].map((item) => item.id)")
    assert selected == ["case-0"]


def test_a_page_says_what_it_left_out(open_report: Callable[[Path], Any], tmp_path: Path) -> None:
    small = write_evaluation(tmp_path / "small", ("ink", "grey"), pictures=4, size=64)
    write_report(small, limit=0.02)
    page = open_report(small)
    shown = len(listed(page))
    assert 0 < shown < 8
    assert f"{8 - shown} of 8 cases were left out" in page.find("#left-out").text


def test_general_instructions_have_sources_and_words_of_their_own(
    open_report: Callable[[Path], Any], tmp_path: Path
) -> None:
    general = {"items": ["scene-0"], "prompts": {"scene-0": "add a hat"}}
    folder = write_evaluation(tmp_path / "general", ("ink",), pictures=1, size=32, general=general)
    for column, colour in (("source", "teal"), ("ours", "orange")):
        path = picture_path(folder, column, "general", "scene-0")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(path)
    write_report(folder)
    page = open_report(folder)
    page.set("#case-filters [name=effect]", "general")
    assert page.find("#case-prompt").text == "“add a hat”"
    assert distance(page.pixels('#columns [data-column="source"] img'), Image.new("RGB", (32, 32), "teal")) < 12
    assert distance(page.pixels('#columns [data-column="ours"] img'), Image.new("RGB", (32, 32), "orange")) < 12
    shown = page.js("return [...document.querySelectorAll('#columns button')].map((button) => button.dataset.column)")
    assert shown == ["source", "ours"], "and no place is kept for what there is none of"


def test_what_a_case_has_no_picture_of_is_shown_under_no_label(
    open_report: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder = write_evaluation(tmp_path / "some", ("ink", "grey"), systems=SYSTEMS, pictures=1, size=32)
    for column in ("truth", "ours"):
        picture_path(folder, column, "ink", "scene-0").unlink()
    write_report(folder)
    page = open_report(folder)

    def labels(effect: str) -> tuple[str, ...]:
        page.set("#case-filters [name=effect]", effect)
        captions = page.js(
            "return [...document.querySelectorAll('#columns figcaption strong')].map((c) => c.textContent)"
        )
        sides = page.js("return [...document.querySelectorAll('#slider .side')].map((side) => side.textContent)")
        assert sides == [
            page.js(f"return document.getElementById('{s}').selectedOptions[0].text") for s in ("left", "right")
        ]
        return (*captions, *sides)

    assert labels("grey") == ("Source", "Truth", "Base", "Lightning", "Ours", "Truth", "Ours")
    assert labels("ink") == ("Source", "Base", "Lightning", "Source", "Lightning")
    assert distance(page.pixels("#slider img.over"), own(folder, "source", "ink", "scene-0")) < 12
    assert labels("grey")[-2:] == ("Truth", "Ours"), "what was chosen is back where it is there"
