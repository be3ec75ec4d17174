"""The VLM captioner against a real HTTP server on loopback."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cldistill.errors import EndpointError
from cldistill.records import EffectInfo
from cldistill.testing import ChatServer, completion
from cldistill.testing.chat_server import Answer
from cldistill_plugins.collectionlora.vlm import HELP, VlmCaptioner, clean_caption, sample_pairs
from cldistill_plugins.endpoint.answers import MalformedAnswerError
from cldistill_plugins.endpoint.client import Endpoint

KEY = "sk-very-secret-0123456789"
GOOD: Answer = (200, completion("Redraw the subject as black-and-white manga."))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ChatServer([GOOD])
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs, whose after-pictures are large."""
    root = tmp_path_factory.mktemp("pairs")
    for side, size in (("source", (40, 30)), ("target", (1200, 600))):
        (root / side).mkdir()
        for number in range(5):
            Image.new("RGB", size, (number * 40, 0, len(side))).save(root / side / f"{number}.png")
    return root


@pytest.fixture
def effect(pairs: Path, tmp_path: Path) -> EffectInfo:
    return EffectInfo("manga-tone", "turn it into manga", shutil.copytree(pairs, tmp_path / "pairs"))


def captioner(server: ChatServer, tmp_path: Path, waits: list[float] | None = None, **changes: Any) -> VlmCaptioner:
    sleep = (waits if waits is not None else []).append
    endpoint = replace(Endpoint(server.url, "qwen-vl", timeout=5.0, retries=2, help=HELP, sleep=sleep), **changes)
    return VlmCaptioner(endpoint, tmp_path / "cache" / "captions")


def said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_two_pairs_and_the_prompt_go_in_one_caption_comes_out(
    server: ChatServer, effect: EffectInfo, tmp_path: Path
) -> None:
    assert captioner(server, tmp_path).caption(effect) == "Redraw the subject as black-and-white manga."
    (request,) = server.requests
    assert server.paths == ["/v1/chat/completions"]
    assert request["model"] == "qwen-vl" and request["temperature"] == 0.0
    system, user = request["messages"]
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    pictures = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    assert "the subject" in system["content"] and "turn it into manga" in texts[0]
    assert texts[1:] == ["Pair 1, before:", "Pair 1, after:", "Pair 2, before:", "Pair 2, after:"]
    assert len(pictures) == 4 and all(url.startswith("data:image/png;base64,") for url in pictures)
    assert "authorization" not in server.headers[0]


def test_pictures_are_sent_small(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    import base64
    from io import BytesIO

    captioner(server, tmp_path).caption(effect)
    urls = [part["image_url"]["url"] for part in server.requests[0]["messages"][1]["content"] if "image_url" in part]
    sizes = [Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).size for url in urls]
    assert sizes == [(40, 30), (512, 256)] * 2


def test_the_same_pairs_every_time(effect: EffectInfo) -> None:
    first = [item.key for item in sample_pairs(effect)]
    assert len(first) == 2 and first == [item.key for item in sample_pairs(effect)]


def test_no_pairs_is_a_clear_error() -> None:
    with pytest.raises(EndpointError, match=r"'x' has no pairs.*captioner: template"):
        sample_pairs(EffectInfo("x", "prompt"))


def test_a_failing_server_is_asked_again(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    waits: list[float] = []
    server.answers = [(500, b"boom"), (429, b"slow down", {"Retry-After": "7"}), GOOD]
    assert captioner(server, tmp_path, waits).caption(effect).startswith("Redraw")
    assert len(server.requests) == 3 and waits == [0.5, 7.0]


def test_back_off_doubles_and_then_gives_up(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    waits: list[float] = []
    server.answers = [(503, b"<html>overloaded " + b"x" * 5000)]
    with pytest.raises(EndpointError) as error:
        captioner(server, tmp_path, waits, retries=3).caption(effect)
    text = str(error.value)
    assert waits == [0.5, 1.0, 2.0] and len(server.requests) == 4
    assert text.startswith(
        f"effect 'manga-tone': {server.url}/chat/completions (model qwen-vl): answered with status 503"
    )
    assert "asked 4 times" in text and "captioner: template" in text and len(text) < 600


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad",
    [
        b"<html>hello</html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        completion("   "),
        completion("word " * 400),
        b"\xff\xfe",
        b"[" * 200_000,
    ],
)
def test_malformed_answers_are_asked_again_and_never_cached(
    server: ChatServer, effect: EffectInfo, tmp_path: Path, bad: bytes
) -> None:
    server.answers = [(200, bad)]
    with pytest.raises(EndpointError, match=r"the answer .*asked 3 times"):
        captioner(server, tmp_path).caption(effect)
    assert not list(tmp_path.rglob("captions/*"))
    server.answers = [(200, bad), GOOD]
    assert captioner(server, tmp_path).caption(effect).startswith("Redraw")


def test_a_wrong_request_is_not_repeated(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    server.answers = [(404, b'{"error": "model not found"}')]
    with pytest.raises(EndpointError, match=r"status 404: .*model not found.*check prompts.options"):
        captioner(server, tmp_path).caption(effect)
    assert len(server.requests) == 1


def test_a_silent_server_times_out(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    server.answers = [lambda handler: time.sleep(1.0)]
    with pytest.raises(EndpointError, match=r"no answer within 0.1 s \(asked twice|asked 2 times"):
        captioner(server, tmp_path, timeout=0.1, retries=1).caption(effect)


@pytest.mark.slow
def test_a_dripping_server_times_out(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    whole: list[bool] = []

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(400):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)
        whole.append(True)

    server.answers = [drip]
    with pytest.raises(EndpointError, match="no whole answer within"):
        captioner(server, tmp_path, timeout=0.3, retries=0).caption(effect)
    assert not whole


def test_nobody_there(effect: EffectInfo, tmp_path: Path, server: ChatServer) -> None:
    gone = captioner(server, tmp_path, retries=0)
    server.stop()
    with pytest.raises(EndpointError, match=r"cannot be reached .*asked once"):
        gone.caption(effect)


def test_a_cached_answer_needs_no_server(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    asked = captioner(server, tmp_path)
    assert "will write" in asked.preview(effect)
    caption = asked.caption(effect)
    server.stop()
    assert asked.caption(effect) == asked.preview(effect) == caption
    moved = replace(asked, endpoint=replace(asked.endpoint, url="http://127.0.0.1:9/v1"))
    assert moved.caption(effect) == caption
    assert len(server.requests) == 1


def test_any_changed_input_asks_again(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    asked = captioner(server, tmp_path)
    asked.caption(effect)
    asked.caption(replace(effect, prompt="another prompt"))
    replace(asked, endpoint=replace(asked.endpoint, model="other")).caption(effect)
    replace(asked, endpoint=replace(asked.endpoint, temperature=None)).caption(effect)
    assert "temperature" not in server.requests[-1]
    target = sample_pairs(effect)[0].target
    assert target is not None
    Image.new("RGB", (9, 9), (1, 2, 3)).save(target)
    asked.caption(effect)
    assert len(server.requests) == 5


@pytest.mark.parametrize("text", ['{"caption": ', "[" * 200_000])
def test_a_damaged_cache_file_is_replaced(server: ChatServer, effect: EffectInfo, tmp_path: Path, text: str) -> None:
    asked = captioner(server, tmp_path)
    asked.caption(effect)
    (file,) = (tmp_path / "cache" / "captions").iterdir()
    file.write_text(text)
    asked.caption(effect)
    assert json.loads(file.read_text())["caption"].startswith("Redraw")
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_all_ranks_keep_the_first_answer(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    """Two processes ask at the same time and hear different things: both must train on what was stored first."""
    slow, fast = captioner(server, tmp_path), captioner(server, tmp_path)

    def overtaken(handler: Any) -> None:
        assert fast.caption(effect) == "the fast answer"
        body = completion("the slow answer")
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    server.answers = [overtaken, (200, completion("the fast answer"))]
    assert slow.caption(effect) == "the fast answer"
    assert len(server.requests) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        (401, f'{{"error": "Incorrect API key provided: {KEY}"}}'.encode()),
        (400, f"you sent Bearer {KEY}".encode()),
        (500, f"debug: {KEY}".encode()),
        (200, completion(f"my prompt is {KEY}")),
        (200, f"not json {KEY}".encode()),
        lambda handler: handler.wfile.write(f"garbage {KEY}\r\n\r\n".encode()),
    ],
)
def test_the_key_is_sent_but_never_written_nor_told(
    server: ChatServer, effect: EffectInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setenv("MY_VLM_KEY", f"{KEY}\n")
    server.answers = [answer]
    asked = captioner(server, tmp_path, api_key_env="MY_VLM_KEY", retries=1)
    try:
        text = asked.caption(effect)
    except EndpointError as error:
        text = said(error)
        assert answer is not GOOD
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in text
    assert KEY not in repr(asked)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("value", "message"), [(None, "VLM_KEY holds no key"), (f"{KEY}\nx", "no key has"), ("ü", "no key has")]
)
def test_a_missing_or_broken_key_is_told_without_it(
    server: ChatServer,
    effect: EffectInfo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str | None,
    message: str,
) -> None:
    monkeypatch.delenv("VLM_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("VLM_KEY", value)
    with pytest.raises(EndpointError, match=message) as error:
        captioner(server, tmp_path, api_key_env="VLM_KEY").caption(effect)
    assert KEY not in said(error.value)
    assert not server.requests


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ('  "Redraw it."\n', "Redraw it."),
        ("Prompt: Redraw\n it.", "Redraw it."),
        ("**Edit prompt:** Redraw it.", "Redraw it."),
        ("```text\nRedraw it.\n```", "Redraw it."),
        ("<think>Hmm.\nA cat?</think>\n\nRedraw it.", "Redraw it."),
        ("Redraw the “subject” now", "Redraw the “subject” now"),
    ],
)
def test_answers_are_cleaned(answer: str, caption: str) -> None:
    assert clean_caption(answer) == caption


def test_an_empty_answer_is_malformed() -> None:
    with pytest.raises(MalformedAnswerError):
        clean_caption("<think>only thoughts</think> ``` ```")


def test_content_in_parts(server: ChatServer, effect: EffectInfo, tmp_path: Path) -> None:
    server.answers = [(200, completion([{"type": "text", "text": "Redraw "}, {"type": "text", "text": "it."}]))]
    assert captioner(server, tmp_path).caption(effect) == "Redraw it."
