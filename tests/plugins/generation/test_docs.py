"""docs/using.md: its commands and options are those that there are, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cldistill.cli.main import app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/using.md").read_text(encoding="utf-8")
GROUP: Any = typer.main.get_command(app)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def command(name: str) -> Any:
    """Return a command with its parameters; a plugin's is imported for them."""
    return GROUP.resolve_command(typer.Context(GROUP), [name])[1]


LINES = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("cldistill ")]


@pytest.mark.parametrize("line", LINES)
def test_a_command_of_the_page_takes_its_words(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    found = command(name)
    found.make_context(name, words, parent=typer.Context(GROUP))  # raises where a word is unknown


@pytest.mark.parametrize(("title", "name"), [("Pictures and folders", "generate"), ("In the browser", "ui")])
def test_the_table_of_options_names_all_of_them(title: str, name: str) -> None:
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    listed = {
        word
        for row in re.findall(r"^\| (`-.*?) \|", section, flags=re.MULTILINE)
        for word in re.findall(r"`(-[\w-]+)`", row)
    }
    options = [parameter for parameter in command(name).params if parameter.param_type_name == "option"]
    known = {option for parameter in options for option in (*parameter.opts, *parameter.secondary_opts)}
    assert listed <= known
    missing = [parameter.opts for parameter in options if not {*parameter.opts, *parameter.secondary_opts} & listed]
    assert [opts for opts in missing if opts != ["--help"]] == []


def test_every_flag_of_push_is_in_the_text() -> None:
    section = PAGE.split("## On the hub\n")[1]
    flags = {option for parameter in command("push").params for option in parameter.opts if option.startswith("--")}
    assert flags - {"--licence", "--message", "--help"} <= set(re.findall(r"--[\w-]+", section))


def test_its_yaml_and_links_are_right() -> None:
    (text,) = blocks("yaml")
    assert set(yaml.safe_load(text)) == {"effects", "slots", "evaluate"}
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) == anchors
    assert "(docs/using.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
