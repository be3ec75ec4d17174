"""Observers: what they mark must exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cldistill.component import BuildContext, Needs, Settings, observer
from cldistill.errors import PluginError
from cldistill.markers import hookimpl
from cldistill.testing.environment import catalogue_with
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
