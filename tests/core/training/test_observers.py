"""Observers: what they mark must exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cldistill.component import BuildContext, Needs, Settings, observer
from cldistill.errors import PluginError, Stopped
from cldistill.markers import hookimpl
from cldistill.testing.environment import catalogue_with
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import run_manifest
from cldistill.training.observers import check_observers


class Misspelt:
    @hookimpl
    def step_finnished(self, run: Any, result: Any) -> None:
        raise AssertionError("never called")


class OtherArguments:
    @hookimpl
    def step_finished(self, run: Any, outcome: Any) -> None:
        raise AssertionError("never called")


class Right:
    @hookimpl
    def step_finished(self, result: Any) -> None:
        """Watch."""


def test_a_misspelt_hook_is_no_silent_observer() -> None:
    with pytest.raises(
        PluginError, match=r"observer Misspelt .*no hook 'step_finnished'; did you mean 'step_finished'"
    ):
        check_observers([Right(), Misspelt()])
    with pytest.raises(PluginError, match=r"(?s)OtherArguments.*outcome"):
        check_observers([OtherArguments()])
    check_observers([Right()])


def test_it_is_refused_before_anything_is_prepared(tmp_path: Path) -> None:
    class Nothing(Settings):
        pass

    def build(settings: Nothing, context: BuildContext) -> object:
        return Misspelt()

    part = observer("misspelt", "", Nothing, lambda settings: Needs(), build)
    with pytest.raises(PluginError, match="step_finnished"):
        run_manifest(tmp_path, catalogue_with(part), observers=[{"use": "misspelt"}])
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


class Nothing(Settings):
    """No options."""


class AtTheEnd:
    """Notes what it was built with, adds a figure of its own at the end, and fails if it is told to."""

    seen: list[BuildContext]

    def __init__(self, context: BuildContext, error: Exception | None) -> None:
        self.error = error
        self.seen.append(context)

    @hookimpl
    def run_exported(self, exported: Any) -> None:
        if self.error is not None:
            raise self.error
        exported.report["mine"] = 3


def at_the_end(name: str, error: Exception | None = None, **options: Any) -> Any:
    return observer(name, "", Nothing, lambda s: Needs(), lambda s, context: AtTheEnd(context, error), **options)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    AtTheEnd.seen = []


@pytest.mark.slow
def test_an_error_at_the_end_is_told_after_all_have_measured_and_nothing_is_lost(tmp_path: Path) -> None:
    failing = at_the_end("failing", PluginError("the tracker is down"), automatic=True)
    with pytest.raises(PluginError, match="the tracker is down"):
        run_manifest(tmp_path, catalogue_with(failing, at_the_end("fine", automatic=True)), steps=1)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["mine"] == 3
    assert report["run"]["generator_steps"] == 1


@pytest.mark.slow
def test_a_stop_at_the_end_goes_through_and_the_same_command_goes_on(tmp_path: Path) -> None:
    stopped = at_the_end("stopped", Stopped("stopped while measuring"), automatic=True)
    done = run_manifest(tmp_path, catalogue_with(stopped), steps=1)
    assert done.collection is None
    assert "Stopped while measuring. Go on with:" in done.text
    assert not (tmp_path / "run/report.json").exists()


@pytest.mark.slow
def test_named_and_automatic_observers_know_manifest_and_console_and_are_built_once(tmp_path: Path) -> None:
    parts = catalogue_with(at_the_end("named"), at_the_end("always", automatic=True))
    run_manifest(tmp_path, parts, steps=1, observers=[{"use": "named"}, {"use": "always"}])
    assert len(AtTheEnd.seen) == 2
    assert all(context.outline.manifest is not None and context.console is not None for context in AtTheEnd.seen)


@pytest.mark.slow
def test_a_key_that_nobody_serves_is_told(tmp_path: Path) -> None:
    images = tmp_path / "held-out"
    write_pictures(images, 1)
    told = {"evaluate": {"images": str(images), "teacher_steps": 1}, "samples": {"images": str(images), "every": 1}}
    serving = at_the_end("serving", automatic=True, serves="samples")
    output = run_manifest(tmp_path, catalogue_with(serving), steps=1, **told).text
    assert "warning: no plugin that works serves `evaluate:`" in output
    assert "`samples:`" not in output
