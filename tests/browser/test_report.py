"""``report.html`` in a real Chromium, opened from disk."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cldistill.report.html import write_report
from cldistill.report.record import picture_path
from cldistill.testing.evaluation import write_evaluation

PHONE = (390, 844)
SYSTEMS = ("base", "lightning", "ours")
RESET = """
    for (const form of document.forms) form.reset();
    document.getElementById("score-filters").dispatchEvent(new Event("input"));
    for (const select of document.querySelectorAll("#left, #right")) {
      select.value = [...select.options].find((option) => option.defaultSelected).value;
      select.dispatchEvent(new Event("change"));
    }
    const divider = document.querySelector("#slider input");
    divider.value = 50;
    divider.dispatchEvent(new Event("input"));
    scrollTo(0, 0);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_evaluation(tmp_path_factory.mktemp("report") / "evaluation", systems=SYSTEMS, size=64, failing=0.5)
    write_report(made)
    return made


@pytest.fixture
def page(browser: Any, folder: Path) -> Any:
    """The report as it opens; opened once and then put back, for opening takes a second."""
    if not browser.driver.current_url.startswith((folder / "report.html").as_uri()):
        return opened(browser, folder)
    browser.js(RESET)
    browser.wait_js("setTimeout(done, 0)")
    return browser


def opened(browser: Any, folder: Path) -> Any:
    """Open the report and wait until its plots are drawn."""
    browser.open(folder / "report.html")
    browser.wait_js("""
        const look = () => document.documentElement.dataset.charts ? done() : setTimeout(look, 20);
        look();""")
    return browser


def find(page: Any, selector: str) -> Any:
    return page.driver.find_element(By.CSS_SELECTOR, selector)


def choose(page: Any, selector: str, value: str) -> None:
    """Set a field as a person does, events included."""
    page.js(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
        "arguments[0].dispatchEvent(new Event('change', {bubbles: true}));",
        find(page, selector), value,
    )  # fmt: skip


def column(page: Any, number: int) -> list[str]:
    """Return what the table of effects sorts a column by, as shown from top to bottom."""
    return page.js(
        "return [...document.querySelectorAll(`#scores tbody td:nth-child(${arguments[0]})`)]"
        ".map((cell) => cell.dataset.order ?? cell.textContent)",
        number,
    )


def wait_sorted(page: Any, number: int, direction: str) -> None:
    """Wait until the table says that it is sorted by a column: DataTables sorts after the event, not in it."""
    page.wait_js(
        """
        const heading = document.querySelector(`#scores thead th:nth-child(${arguments[0]})`);
        const look = () => heading.ariaSort === arguments[1] ? done() : setTimeout(look, 10);
        look();""",
        number, direction,
    )  # fmt: skip


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


def test_it_opens_without_errors_and_asks_for_nothing_else(page: Any) -> None:
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
    heading = find(page, "#scores thead th:nth-child(6)")
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
    choose(page, "#score-filters [name=system]", "lightning")
    assert column(page, 2) == ["Lightning"] * 8
    choose(page, "#score-filters [name=kind]", "stochastic")
    assert column(page, 1) == ["oil-paint", "vivid"]
    choose(page, "#score-filters [name=kind]", "")
    choose(page, "#score-filters [name=text]", "apply the style")
    assert column(page, 1) == ["old-photo", "poster"]
    choose(page, "#score-filters [name=text]", "")
    choose(page, "#score-filters [name=system]", "")
    choose(page, "#score-filters [name=family]", "style-interference")
    shown = page.js("return [...document.querySelectorAll('#scores tbody tr')].map((row) => row.textContent)")
    assert 0 < len(shown) < 24
    assert all("Style interference" in text for text in shown)


def test_bad_cases_come_first_and_are_tagged(page: Any, folder: Path) -> None:
    failures = json.loads((folder / "report.json").read_text())["failures"]

    def failing(text: str) -> int:
        return sum(text.startswith(f"{e}{k}") for pools in failures.values() for e, keys in pools.items() for k in keys)

    counts = [failing(text) for text in listed(page)]
    assert len(counts) == 24
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 0 == counts[-1]
    effect, key = chosen(page)
    titles = {"texture-and-detail-loss": "Texture", "style-interference": "Style", "generalisation-collapse": "General"}
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
        find(page, "#next").click()
    effect, key = chosen(page)
    assert distance(page.pixels('#columns [data-column="source"] img'), own(folder, "truth", "negative", key)) > 30


def test_the_viewer_filters(page: Any) -> None:
    choose(page, "#case-filters [name=effect]", "mirror")
    assert len(listed(page)) == 3
    assert all(text.startswith("mirror") for text in listed(page))
    choose(page, "#case-filters [name=effect]", "")
    choose(page, "#case-filters [name=kind]", "stochastic")
    assert {text.split("scene")[0] for text in listed(page)} == {"oil-paint", "vivid"}
    choose(page, "#case-filters [name=kind]", "")
    choose(page, "#case-filters [name=family]", "generalisation-collapse")
    collapsed = listed(page)
    assert collapsed and all("Generalisation collapse" in text and "Style" not in text for text in collapsed)
    choose(page, "#case-filters [name=system]", "ours")
    assert len(listed(page)) < len(collapsed)
    find(page, "#case-filters [type=reset]").click()
    page.wait_js("setTimeout(done, 50)")
    assert len(listed(page)) == 24


def test_the_viewer_orders_by_a_metric(page: Any, folder: Path) -> None:
    values = json.loads((folder / "report.json").read_text())["values"]["ours"]
    choose(page, "#case-filters [name=system]", "ours")
    choose(page, "#case-filters [name=order]", "truth_distance")
    effect, key = chosen(page)
    worst = max(max(metrics["truth_distance"]) for metrics in values.values())
    assert values[effect]["truth_distance"][int(key.removeprefix("scene-"))] == worst


def test_no_case_fits_is_said_and_no_error(page: Any) -> None:
    choose(page, "#case-filters [name=effect]", "grey")
    choose(page, "#case-filters [name=kind]", "stochastic")
    assert find(page, "#case-count").text == "0 of 24 cases"
    assert not find(page, "#stage").is_displayed()
    assert page.errors() == []


def test_the_slider_uncovers_one_picture_over_the_other(page: Any, folder: Path) -> None:
    effect, key = chosen(page)
    choose(page, "#left", "source")
    choose(page, "#right", "truth")
    frame = find(page, "#slider")

    def seen(split: int) -> Image.Image:
        choose(page, "#slider input", str(split))
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
    slider = find(page, "#slider input")
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.js("return document.getElementById('slider').style.getPropertyValue('--split')") == "52%"
    assert slider.get_attribute("aria-valuetext") == "52 % Truth, the rest Ours"


def test_a_click_on_a_picture_puts_it_under_the_slider(page: Any) -> None:
    find(page, '#columns [data-column="lightning"]').click()
    assert find(page, "#right").get_attribute("value") == "lightning"
    assert page.pixels("#slider img.under").tobytes() == page.pixels('[data-column="lightning"] img').tobytes()
    pressed = page.js("return [...document.querySelectorAll('[aria-pressed=true]')].map((b) => b.dataset.column)")
    assert pressed == ["truth", "lightning"]


def test_the_list_works_with_the_keyboard(page: Any) -> None:
    cases = find(page, "#cases")
    cases.send_keys(Keys.ARROW_DOWN)
    assert cases.get_attribute("aria-activedescendant") == "case-1"
    assert listed(page)[1].startswith("".join(chosen(page)))
    cases.send_keys(Keys.END)
    assert find(page, "#case-place").text == "24 of 24"
    assert not find(page, "#next").is_enabled()
    cases.send_keys(Keys.HOME, Keys.ARROW_UP)
    assert find(page, "#case-place").text == "1 of 24"
    selected = page.js("return [...document.querySelectorAll('#cases [aria-selected=true]')].map((item) => item.id)")
    assert selected == ["case-0"]


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


def test_an_effect_of_the_table_opens_in_the_viewer(page: Any) -> None:
    find(page, '#scores button.look[data-effect="poster"][data-system="lightning"]').click()
    assert len(listed(page)) == 3
    assert chosen(page)[0] == "poster"
    assert find(page, "#right").get_attribute("value") == "lightning"
    assert page.driver.switch_to.active_element.get_attribute("id") == "cases"


def test_light_and_dark(browser: Any, folder: Path) -> None:
    browser.screen((1280, 900), "dark")
    page = opened(browser, folder)

    def ground() -> str:
        return page.js("return getComputedStyle(document.body).backgroundColor")

    def label() -> str:
        return page.js("return document.querySelector('[data-spec] svg text').getAttribute('fill')")

    dark = (ground(), label())
    find(page, "#theme").click()
    page.wait_js("setTimeout(done, 600)")
    assert find(page, "#theme").text == "Dark"
    light = (ground(), label())
    assert dark[0] == "rgb(19, 22, 26)" and light[0] == "rgb(255, 255, 255)"
    assert dark[1] != light[1], "the plots follow"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser: Any, folder: Path, colours: str) -> None:
    browser.screen(PHONE, colours, touch=True)
    page = opened(browser, folder)
    assert page.js("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    widths = page.js(
        "return [...document.querySelectorAll('#columns img')].map((i) => i.getBoundingClientRect().width)"
    )
    assert min(widths) > 120
    assert page.errors() == []


def test_a_page_says_what_it_left_out(browser: Any, folder: Path, tmp_path: Path) -> None:
    small = write_evaluation(tmp_path / "small", ("ink", "grey"), pictures=4, size=64)
    write_report(small, limit=0.02)
    page = opened(browser, small)
    shown = len(listed(page))
    assert 0 < shown < 8
    assert f"{8 - shown} of 8 cases were left out" in find(page, "#left-out").text


def test_general_instructions_have_sources_and_words_of_their_own(browser: Any, tmp_path: Path) -> None:
    general = {"items": ["scene-0"], "prompts": {"scene-0": "add a hat"}}
    folder = write_evaluation(tmp_path / "general", ("ink",), pictures=1, size=32, general=general)
    for column, colour in (("source", "teal"), ("ours", "orange")):
        path = picture_path(folder, column, "general", "scene-0")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(path)
    write_report(folder)
    page = opened(browser, folder)
    choose(page, "#case-filters [name=effect]", "general")
    assert find(page, "#case-prompt").text == "“add a hat”"
    assert distance(page.pixels('#columns [data-column="source"] img'), Image.new("RGB", (32, 32), "teal")) < 12
    assert distance(page.pixels('#columns [data-column="ours"] img'), Image.new("RGB", (32, 32), "orange")) < 12
    empty = page.js("return [...document.querySelectorAll('#columns button:disabled')].map((b) => b.dataset.column)")
    assert empty == ["truth", "base"]
