"""A study of four systems, and an evaluator who sits in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.study.key import PAGE, StudyKey, StudySet
from cldistill_plugins.evaluation.study.page import write_study

READY = "document.documentElement.dataset.ready"


class Evaluator:
    """Somebody who sees the page for the first time."""

    def __init__(self, page: Any, file: Path, key: StudyKey) -> None:
        self.page = page
        self.file = file
        self.key = key

    def arrive(self) -> None:
        """Open the page in a browser that knows nothing of it."""
        self.page.open(self.file)
        for _ in range(5):  # a page that is left may still save where it was
            self.page.js("localStorage.clear()")
            self.page.open(self.file)
            self.page.wait(READY)
            if not self.page.js("return document.getElementById('welcome').hidden"):
                break

    def begin(self, name: str = "Ann") -> None:
        """Give a name and press Enter, as soon as the field is drawn."""
        self.page.wait(
            "document.querySelector('#name').getClientRects().length > 0 && document.readyState == 'complete'"
        )
        self.page.find("#name").send_keys(name, Keys.ENTER)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        for key in keys:
            self.page.driver.switch_to.active_element.send_keys(key)

    def choose(self, question: str, letter: str) -> None:
        """Click an answer."""
        self.page.find(f'[name={question}][data-letter="{letter}"]').click()

    @property
    def title(self) -> str:
        """The heading on the screen."""
        return str(
            self.page.js("return [...document.querySelectorAll('h1')].find((h) => h.checkVisibility()).textContent")
        )

    @property
    def checked(self) -> dict[str, str]:
        """The answers on the screen: question and token."""
        found: dict[str, str] = self.page.js(
            "const checked = [...document.querySelectorAll('#answers input:checked')];"
            "return Object.fromEntries(checked.map((input) => [input.name, input.value]))"
        )
        return found

    def set_on_screen(self) -> StudySet:
        """Return what the key says about the set on the screen."""
        tokens = self.page.js("return [...document.querySelectorAll('[name=quality]')].map((input) => input.value)")
        return next(one for one in self.key.sets if set(one.candidates) == set(tokens))

    def answer_all(self, taste: Mapping[str, Callable[[StudySet], str]]) -> None:
        """Answer every set like somebody whose favourite in a question is the system ``taste[question](set)``."""
        for _ in self.key.sets:
            one = self.set_on_screen()
            tokens = {system: token for token, system in one.candidates.items()}
            for question, favourite in taste.items():
                self.page.find(f'[name={question}][value="{tokens[favourite(one)]}"]').click()
            self.page.find("#forward").click()

    def like(self, system: str) -> None:
        """Find one system the best in every respect."""
        self.answer_all({question.name: lambda one: system for question in self.key.questions})

    def save(self) -> Path:
        """Press the button, and return the file that came down."""
        before = set(self.page.downloads.iterdir())
        self.page.find("#save").click()
        for _ in range(500):
            new = [path for path in set(self.page.downloads.iterdir()) - before if path.suffix == ".json"]
            if new:
                return Path(new[0])
            time.sleep(0.02)
        raise AssertionError("no file came down")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of four systems whose names occur nowhere else."""
    systems = ("quokka", "wombat", "numbat", "bilby")
    return write_evaluation(tmp_path_factory.mktemp("study") / "evaluation", systems=systems, size=64)


@pytest.fixture(scope="session")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyKey]:
    """The page of five sets, and its key."""
    output = tmp_path_factory.mktemp("study") / "study"
    return output / PAGE, write_study(folder, output, sets=5)


@pytest.fixture
def evaluator(browser: Any, study: tuple[Path, StudyKey]) -> Evaluator:
    """Somebody who has just opened the page."""
    arrived = Evaluator(browser, *study)
    arrived.arrive()
    return arrived
