"""Commands that plugins contribute: listed without being imported, run when called, and refused in plain words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import PluginLoadError
from cldistill.testing import plugin_environment

PLUGIN = """
    from cldistill.component import Command
    from cldistill.markers import hookimpl

    @hookimpl
    def register_commands():
        return [Command("wave", "Wave at somebody.", {target!r})]
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Install plugins that contribute the command ``wave``; the modules are gone again afterwards."""
    contexts = []

    def make(*names: str, target: str = "waving_command:wave") -> None:
        for name in names:
            (tmp_path / f"{name}_plugin.py").write_text(dedent(PLUGIN.format(target=target)))
        (tmp_path / "waving_command.py").write_text("def wave(name: str) -> None:\n    print(f'hello {name}')\n")
        contexts.append(plugin_environment({name: f"{name}_plugin" for name in names}, [tmp_path]))
        contexts[-1].__enter__()

    yield make
    for context in contexts:
        context.__exit__(None, None, None)
    for module in [name for name in sys.modules if name.startswith("wav")]:
        del sys.modules[module]


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, PluginLoadError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_contributed_command_is_listed_without_being_imported(install: Install) -> None:
    install("waving")
    assert "Wave at somebody." in run("--help")
    assert "waving_command" not in sys.modules


def test_a_contributed_command_takes_its_arguments_and_runs(install: Install) -> None:
    install("waving")
    assert run("wave", "Ada") == "hello Ada\n"
    assert "{name}" in run("wave", "--help")


def test_two_plugins_with_one_command_are_both_named(install: Install) -> None:
    install("waving", "wavering")
    with pytest.raises(PluginLoadError, match=r"'wave' is registered more than once, by .*'wavering'.* and .*'waving'"):
        run("wave", "Ada")


def test_a_command_of_the_engine_cannot_be_taken_over(install: Install, tmp_path: Path) -> None:
    install("waving")
    text = (tmp_path / "waving_plugin.py").read_text()
    (tmp_path / "waving_plugin.py").write_text(text.replace('"wave"', '"check"'))
    assert "Wave at somebody." not in run("--help")


def test_a_target_that_is_not_there_is_told_with_its_plugin(install: Install) -> None:
    install("waving", target="waving_command:bow")
    with pytest.raises(PluginLoadError, match=r"command 'wave' of plugin 'waving' of .* cannot be loaded: .*'bow'"):
        run("wave", "Ada")


def test_a_target_without_a_function_makes_a_broken_plugin(install: Install) -> None:
    install("waving", target="waving_command")
    with pytest.raises(PluginLoadError, match=r"no command is called 'wave'.*\n.*must be 'package.module:function'"):
        run("wave", "Ada")


def test_a_command_of_a_plugin_that_was_left_out_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLDISTILL_DISABLE_PLUGINS", "evaluation,teachers")
    with pytest.raises(PluginLoadError, match=r"'eval'.*\n.*CLDISTILL_DISABLE_PLUGINS.*: evaluation, teachers"):
        run("eval", "x.yaml")
    assert "Train the teachers" not in run("--help")


def test_a_mistyped_command_gets_the_nearest_one() -> None:
    for typed, meant in (("chekc", "check"), ("evall", "eval")):
        with pytest.raises(PluginLoadError, match=f"no command is called '{typed}'.*'{meant}'"):
            run(typed)
