"""Routers: a real text encoder, and a model behind a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cldistill.errors import EndpointError, NotMeasured
from cldistill.testing import ChatServer, completion
from cldistill_plugins.deployment import routers
from cldistill_plugins.deployment.queries import BankEffect
from cldistill_plugins.deployment.routers import TextRouter, VlmRouter
from cldistill_plugins.endpoint.client import Endpoint

BANK = [
    BankEffect(name="loose-sketch", prompt="sketch it"),
    BankEffect(name="snowfall", prompt="make it snow"),
    BankEffect(name="big-pixels", prompt="make it pixel art"),
]


@pytest.mark.slow
def test_the_text_encoder_finds_what_is_meant() -> None:
    pytest.importorskip(routers.ENCODER)
    router = TextRouter(BANK)
    asked = ("let snow fall on my dog, please", "draw it with a pencil", "turn it into an old 8-bit video game")
    assert [router.route(query) for query in asked] == ["snowfall", "loose-sketch", "big-pixels"]


def test_without_its_package_the_text_encoder_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "ENCODER", "no_such_package_of_anybody")
    routers.text_encoder.cache_clear()
    with pytest.raises(NotMeasured, match=r"cldistill\[deployment\]"):
        TextRouter(BANK)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    found = ChatServer([(200, completion(json.dumps({"effect": "snowfall"})))])
    yield found
    found.stop()


def vlm(server: ChatServer) -> VlmRouter:
    return VlmRouter(BANK, Endpoint(server.url, "a-model", retries=1, sleep=lambda seconds: None))


def test_a_model_reads_the_catalogue_and_the_query(server: ChatServer) -> None:
    assert vlm(server).route("let it snow") == "snowfall"
    told = "\n".join(server.texts())
    assert all(f"{effect.name}: {effect.prompt}" in told for effect in BANK) and "let it snow" in told


@pytest.mark.parametrize("answer", ["snowfall", '{"effect": "snow"}', '{"effect": "snowfall", "sure": true}'])
def test_an_answer_that_names_no_effect_is_asked_again_and_then_counted(server: ChatServer, answer: str) -> None:
    server.answers = [(200, completion(answer))]
    router = vlm(server)
    assert router.route("let it snow") is None
    assert router.refused == 1 and len(server.requests) == 2


def test_a_server_that_does_not_work_is_an_error(server: ChatServer) -> None:
    server.answers = [(500, b"")]
    with pytest.raises(EndpointError, match="routing a query"):
        vlm(server).route("let it snow")
