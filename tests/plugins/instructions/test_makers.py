"""The two built-in makers of general instructions, and the command that writes with them."""

from __future__ import annotations

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.data.items import general_items
from cldistill.errors import CldistillError, EndpointError
from cldistill.testing import ChatServer, completion, write_pictures
from cldistill.testing.chat_server import Answer
from cldistill_plugins.instructions.makers import MAKERS
from cldistill_plugins.instructions.mllm_maker import KINDS, MllmMaker
from cldistill_plugins.instructions.request import CATEGORIES, InstructionMaker, InstructionRequest
from cldistill_plugins.instructions.template_maker import TemplateMaker
from cldistill_plugins.instructions.template_words import GAPS, TEMPLATES

KEY = "sk-very-secret-9876543210"
GOOD: Answer = (200, completion('{"instruction": "Add a hat to the dog."}'))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ChatServer([GOOD])
    yield server
    server.stop()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", 6)


def made(name: str, tmp_path: Path, **options: Any) -> InstructionMaker:
    return MAKERS[name].make(MAKERS[name].settings.model_validate(options), tmp_path / "cache")


def check_maker(name: str, pictures: Path, tmp_path: Path, **options: Any) -> None:
    """One line for every category and draw, the same each time, drawn from the request alone."""
    maker = made(name, tmp_path, **options)
    assert maker.concurrency >= 1
    assert maker.identity == made(name, tmp_path, **options).identity != ""
    asked = [
        InstructionRequest(p, c, seed) for p in sorted(pictures.iterdir()) for c in CATEGORIES for seed in range(3)
    ]
    before, state = [request.picture.read_bytes() for request in asked], random.getstate()
    written = [maker.instruction(request) for request in asked]
    assert random.getstate() == state and [request.picture.read_bytes() for request in asked] == before
    assert [maker.instruction(request) for request in reversed(asked)] == written[::-1]
    assert all(text and text == " ".join(text.split()) for text in written)


def maker(server: ChatServer, tmp_path: Path, **options: Any) -> MllmMaker:
    built = made("mllm", tmp_path, endpoint=server.url, model="qwen-vl", retries=0, **options)
    assert isinstance(built, MllmMaker)
    return built


def command(pictures: Path, *words: str) -> Any:
    output = pictures.parent / "general.jsonl"
    result = CliRunner().invoke(app, ["instructions", str(pictures), "--output", str(output), *words])
    if isinstance(result.exception, CldistillError):
        raise result.exception
    return result


# --- templates


def test_templates_write_the_same_for_the_same_request(pictures: Path, tmp_path: Path) -> None:
    check_maker("templates", pictures, tmp_path)


def test_every_category_has_templates_whose_gaps_can_be_filled() -> None:
    assert set(TEMPLATES) == set(CATEGORIES) == set(KINDS)
    used = {gap for many in TEMPLATES.values() for text in many for _, gap, _, _ in Formatter().parse(text) if gap}
    assert used == set(GAPS)


@pytest.mark.parametrize("category", CATEGORIES)
def test_templates_are_varied_whole_sentences(category: str) -> None:
    made = [TemplateMaker().instruction(InstructionRequest(Path("x.png"), category, seed)) for seed in range(300)]
    assert len(set(made)) > 60
    assert all(text[0].isupper() and text.endswith(".") and "{" not in text and "  " not in text for text in made)


# --- a vision-language model


@pytest.mark.slow
def test_the_model_writes_the_same_for_the_same_request(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    check_maker("mllm", pictures, tmp_path, endpoint=server.url, model="m")


def test_the_model_sees_the_picture_and_the_drawn_category(server: ChatServer, pictures: Path, tmp_path: Path) -> None:
    asked = maker(server, tmp_path)
    request = InstructionRequest(pictures / "000.png", "remove", 5)
    assert asked.instruction(request) == "Add a hat to the dog."
    system, text = server.texts()
    assert '{"instruction": "..."}' in system and text.startswith(KINDS["remove"])
    assert len(server.pictures()) == 1
    assert asked.instruction(request) == "Add a hat to the dog." and len(server.requests) == 1
    asked.instruction(InstructionRequest(pictures / "000.png", "add", 5))
    asked.instruction(InstructionRequest(pictures / "001.png", "remove", 5))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (200, completion("Add a hat.")),
        (200, completion('{"instruction": "x"}')),
        (200, completion('{"instruction": 3}')),
        (200, completion('{"instruction": "Add a hat.", "why": "fun"}')),
        (200, completion(f'{{"instruction": "{"word " * 100}"}}')),
        (200, completion(None, refusal="no")),
        (200, b"garbage"),
    ],
)
def test_what_cannot_be_used_is_none_and_not_kept(
    server: ChatServer, pictures: Path, tmp_path: Path, answer: Answer
) -> None:
    server.answers = [answer]
    asked = maker(server, tmp_path)
    request = InstructionRequest(pictures / "000.png", "add", 0)
    assert asked.instruction(request) is None
    server.answers = [(200, completion('```json\n{"instruction": " \\"Add  a hat.\\"\\n"}\n```'))]
    assert asked.instruction(request) == "Add a hat."


def test_the_command_counts_refusals_and_asks_again_for_them_alone(
    server: ChatServer, pictures: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    refused: Counter[str] = Counter()

    def rule(body: dict[str, Any]) -> Answer:
        shown = body["messages"][1]["content"][1]["image_url"]["url"]
        if len(refused) < 2 or shown in refused:
            refused[shown] += 1
            return 200, completion(None, refusal="no")
        return GOOD

    server.rule = rule
    words = ["--maker", "mllm", "--set", f"endpoint={server.url}", "--set", "model=m", "--set", "concurrency=3"]
    first = command(pictures, *words)
    assert first.exit_code == 0 and "4 instructions" in first.stdout and "2 were refused" in first.stdout
    assert server.busiest <= 3
    server.rule = None
    before = len(server.requests)
    second = command(pictures, *words, "--json")
    assert json.loads(second.stdout)["written"] == 6 and json.loads(second.stdout)["kept"] == 4
    assert len(server.requests) == before + 2
    assert len(general_items(pictures, pictures.parent / "general.jsonl")) == 6


def test_the_key_is_sent_and_appears_nowhere(
    server: ChatServer,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    words = ["--maker", "mllm", "--set", f"endpoint={server.url}", "--set", "model=m", "--set", "api_key_env=MY_KEY"]
    words += ["--set", "retries=0"]
    server.answers = [GOOD, GOOD, (200, completion(f'{{"instruction": "say {KEY}"}}')), (401, f"bad {KEY}".encode())]
    with pytest.raises(EndpointError) as error:
        command(pictures, *words, "--set", "concurrency=1")
    assert "401" in str(error.value)
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
    said = f"{error.value!r} {error.value.__cause__!r} {caplog.text}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("answers.sqlite") for path in files)
    assert KEY not in said and not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--maker", "mlm"], "no instruction maker is called 'mlm'; did you mean 'mllm'"),
        (["--maker", "mllm", "--set", "modle=x"], "modle: unknown key ('x'); did you mean 'model'"),
        (["--maker", "mllm"], "--set:1: endpoint: is missing"),
        (["--set", "seed"], "write KEY=VALUE"),
        (["--set", "a=[1"], "no YAML"),
        (["--maker", "mllm", "--set", "model=m", "--set", "endpoint=http://k:v@h/v1"], "must hold no key"),
    ],
)
def test_mistakes_are_named(pictures: Path, words: list[str], message: str) -> None:
    with pytest.raises(CldistillError, match=re.escape(message)):
        command(pictures, *words)


def test_an_unknown_category_is_named(pictures: Path) -> None:
    result = command(pictures, "--categories", "add,stile")
    assert result.exit_code == 2 and "style" in result.output
    assert command(pictures, "--categories", "style", "--per-picture", "2").exit_code == 0
