"""Questions to a chat endpoint: refusals told apart from failures, strict JSON, and what a question is keyed by.

The captioner's tests (``tests/plugins/collectionlora/test_vlm.py``) have the server fail in every other way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from cldistill.errors import EndpointError, OptionsError
from cldistill.manifest.check import check_manifest
from cldistill.testing import ChatServer, completion
from cldistill_plugins.endpoint.answers import MalformedAnswerError, read_json
from cldistill_plugins.endpoint.client import Endpoint, NoUsableAnswerError
from cldistill_plugins.endpoint.question import ChatQuestion, digest
from cldistill_plugins.endpoint.settings import EndpointSettings

ASK = [{"role": "user", "content": "?"}]


class Form(BaseModel):
    """What the tests ask for."""

    model_config = ConfigDict(extra="forbid")
    score: int = Field(ge=1, le=5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ChatServer([(200, completion("yes"))])
    yield server
    server.stop()


def endpoint(server: ChatServer, **changes: Any) -> Endpoint:
    return replace(Endpoint(server.url, "m", timeout=5.0, retries=2, sleep=lambda seconds: None), **changes)


@pytest.mark.parametrize(
    "answer",
    [
        (200, completion(None, refusal="I will not.")),
        (200, json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}).encode()),
        (400, json.dumps({"error": {"code": "content_filter", "message": "no"}}).encode()),
        (422, json.dumps({"error": {"type": "moderation_blocked"}}).encode()),
    ],
)
def test_a_refusal_is_told_apart_and_asked_once(server: ChatServer, answer: tuple[int, bytes]) -> None:
    server.answers = [answer]
    with pytest.raises(NoUsableAnswerError, match=r"thing: .*(declined|filter)") as error:
        endpoint(server).ask(ASK, str, "thing")
    assert error.value.refused and len(server.requests) == 1


def test_an_answer_that_stays_unreadable_is_no_failure_of_the_server(server: ChatServer) -> None:
    def read(text: str) -> str:
        raise MalformedAnswerError("nonsense")

    with pytest.raises(NoUsableAnswerError, match=r"nonsense \(asked 3 times\); look there") as error:
        endpoint(server, help="look there").ask(ASK, read, "thing")
    assert not error.value.refused


@pytest.mark.parametrize(
    "answer", [(500, b"boom"), (404, b"no such model"), (400, b'{"error": "bad"}'), (400, b"[]"), (400, b"[" * 200_000)]
)
def test_a_failing_server_is_another_error(server: ChatServer, answer: tuple[int, bytes]) -> None:
    server.answers = [answer]
    with pytest.raises(EndpointError) as error:
        endpoint(server).ask(ASK, str, "thing")
    assert not isinstance(error.value, NoUsableAnswerError)


def test_settings_name_an_endpoint_and_json_can_be_forced(server: ChatServer) -> None:
    options = {"endpoint": server.url, "model": "m", "temperature": None, "json_mode": True, "retries": 0}
    asked = Endpoint.of(EndpointSettings.model_validate(options), "help")
    assert asked.ask(ASK, str, "thing") == "yes"
    assert server.requests[0] == {"model": "m", "messages": ASK, "response_format": {"type": "json_object"}}


@pytest.mark.parametrize("url", ["localhost:1/v1", "ftp://host/v1", "http://key@host/v1", "http://host/v1?key=k"])
def test_an_address_that_is_none_or_holds_a_key_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must"):
        EndpointSettings.model_validate({"endpoint": url, "model": "m"})


def test_the_refusal_of_a_key_in_a_manifest_does_not_repeat_it() -> None:
    judge = "{use: mllm-judge, options: {endpoint: 'http://me:hunter2@host/v1', model: m}}"
    with pytest.raises(OptionsError, match=r"endpoint: must hold no key.*http://\*\*\*@host/v1") as refused:
        check_manifest("quickstart", (f"evaluate.metrics=[{judge}]",), files=False)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "answer", ['{"score": 4}', ' {"score": 4}\n', '```json\n{"score": 4}\n```', '<think>5?</think>```\n{"score": 4}```']
)
def test_one_object_is_read_bare_or_fenced(answer: str) -> None:
    assert read_json(answer, Form).score == 4


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("4", "object"),
        ("Sure! {\"score\": 4}", "JSON"),
        ('{"score": 4} {"score": 5}', "JSON"),
        ('[{"score": 4}]', "object"),
        ('{"score": "4"}', "score"),
        ('{"score": 4.5}', "score"),
        ('{"score": true}', "score"),
        ('{"score": 0}', "score"),
        ('{"score": 6}', "score"),
        ('{"score": null}', "score"),
        ("{}", "score"),
        ('{"score": 4, "sure": true}', "sure"),
        ("", "JSON"),
    ],
)  # fmt: skip
def test_nothing_else_is_guessed(answer: str, reason: str) -> None:
    with pytest.raises(MalformedAnswerError, match=reason):
        read_json(answer, Form)


def test_a_question_is_texts_and_small_pictures() -> None:
    large = Image.new("RGB", (100, 50), (1, 2, 3))
    system, user = ChatQuestion("do", ["look:", large], side=20).messages()
    assert system == {"role": "system", "content": "do"}
    text, shown = user["content"]
    assert text == {"type": "text", "text": "look:"}
    sent = Image.open(BytesIO(base64.b64decode(shown["image_url"]["url"].partition(",")[2])))
    assert sent.size == (20, 10) and large.size == (100, 50)


def test_a_key_hashes_the_content_of_a_question() -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    question = ChatQuestion("do", ["a", first])
    assert question.key("m", 0.0) == ChatQuestion("do", ["a", first.copy()]).key("m", 0.0)
    others = [
        ChatQuestion("other", ["a", first]).key("m", 0.0),
        ChatQuestion("do", ["a", second]).key("m", 0.0),
        ChatQuestion("do", [first, "a"]).key("m", 0.0),
        ChatQuestion("do", ["a", digest(first)]).key("m", 0.0),
        ChatQuestion("do", ["a", first], side=9).key("m", 0.0),
        question.key("n", 0.0),
        question.key("m", None),
    ]
    assert len({question.key("m", 0.0), *others}) == 8
