"""``mllm-judge`` against a real HTTP server on loopback that answers, refuses and misbehaves."""

from __future__ import annotations

import base64
import json
import logging
import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cldistill.component import BuildContext
from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured, OptionsError
from cldistill.plugins import register
from cldistill.records import EffectInfo, MetricValues
from cldistill.testing import ChatServer, check_metric, completion
from cldistill.testing.chat_server import Answer
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill_plugins.evaluators import plugin
from cldistill_plugins.evaluators.judge import Judge, JudgeSettings, build_judge
from cldistill_plugins.evaluators.judge_prompts import CRITERIA, STAGE_1, STAGE_2
from cldistill_plugins.evaluators.references import reference_pairs

(JUDGE,) = (part for part in register(plugin).components if part.name == "mllm-judge")
KEY = "sk-very-secret-5550123"


def says(content: object) -> Answer:
    return 200, completion(content if isinstance(content, str) or content is None else json.dumps(content))


GOOD = says({"is_bad_case": False, "reason": "clean"})
BAD = says({"is_bad_case": True, "reason": "smeared"})
SCORE = says({"score": 4, "reason": "same dog"})


def stage(body: dict[str, Any]) -> int:
    return {STAGE_1: 1, STAGE_2: 2}[body["messages"][0]["content"]]


def honest(body: dict[str, Any]) -> Answer:
    return GOOD if stage(body) == 1 else SCORE


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ChatServer(rule=honest)
    yield server
    server.stop()


@pytest.fixture
def request_(request_: TinyMetricRequest) -> TinyMetricRequest:
    """Two systems, two pictures."""
    items = {pool: rows[:2] for pool, rows in request_.items.items()}
    outputs = {
        system: {pool: made[:2] for pool, made in request_.outputs[system].items()} for system in ("base", "student@4")
    }
    return replace(request_, items=items, outputs=outputs)


def build(server: ChatServer, tmp_path: Path, **options: Any) -> Judge:
    settings = JUDGE.settings.model_validate(
        {"endpoint": server.url, "model": "judge-vl", "retries": 1, "timeout": 5.0, "concurrency": 1, **options}
    )
    context = BuildContext(tmp_path, tmp_path / "cache", tmp_path, effects=(EffectInfo("invert", "invert"),))
    judge = JUDGE.build(settings, context)
    assert isinstance(judge, Judge)
    return replace(judge, endpoint=replace(judge.endpoint, sleep=lambda seconds: None))


def values(found: Any, system: str = "student@4") -> dict[str, list[float]]:
    row: MetricValues = found[system]["invert"]
    return {name: list(numbers) for name, numbers in row.per_picture.items()}


def same(found: list[float], expected: list[float]) -> bool:
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(found, expected, strict=True))


def shown(url: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.slow
def test_it_conforms(server: ChatServer, request_: TinyMetricRequest) -> None:
    check_metric(JUDGE, {"endpoint": server.url, "model": "m"}, request=request_)


def test_stage_1_sees_everything_and_stage_2_the_good_cases(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    found = build(server, tmp_path)(request_)
    assert found.keys() == {"base", "student@4"} and found["base"].keys() == {"invert"}
    assert values(found) == {"judge_bcr": [0.0, 0.0], "judge_vsa": [4.0, 4.0], "judge_refused": [0.0, 0.0]}
    assert found["base"]["invert"].tags == {"judge_reason": ["clean", "clean"]}
    assert [stage(body) for body in server.requests] == [1, 2] * 4
    assert server.texts(0) == [
        STAGE_1, "Instruction: invert the colours", f"Criteria: {CRITERIA}",
        "Reference, before:", "Reference, after:", "Test, input:", "Test, output:",
    ]  # fmt: skip
    (pair,) = reference_pairs(request_.effects[0], 1)
    assert pair.target is not None
    source = open_picture(request_.items["invert"][0].sources[0])
    output = request_.outputs["base"]["invert"][0]
    expected = [open_picture(pair.sources[0]), open_picture(pair.target), source, output]
    assert [shown(url).tobytes() for url in server.pictures(0)] == [picture.tobytes() for picture in expected]
    assert server.texts(1)[0] == STAGE_2
    assert [shown(url).tobytes() for url in server.pictures(1)] == [source.tobytes(), output.tobytes()]
    assert request_.progress == [0.25, 0.5, 0.75, 1.0]


def test_a_bad_case_scores_0_and_is_not_asked_again(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    server.rule = lambda body: BAD
    found = build(server, tmp_path)(request_)
    assert values(found) == {"judge_bcr": [1.0, 1.0], "judge_vsa": [0.0, 0.0], "judge_refused": [0.0, 0.0]}
    assert found["base"]["invert"].tags["judge_reason"] == ["smeared", "smeared"]
    assert len(server.requests) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        says({"is_bad_case": "false", "reason": "x"}),
        says({"is_bad_case": 0, "reason": "x"}),
        says({"is_bad_case": False}),
        says({"is_bad_case": False, "reason": "x", "confidence": 0.9}),
        says([{"is_bad_case": False, "reason": "x"}]),
        says("It is a good case: {\"is_bad_case\": false, \"reason\": \"x\"}"),
        says("I'm sorry, I can't help with that."),
        says(""),
        says(None),
        (200, b"<html>"),
        (200, completion(None, refusal="I can't.")),
        (400, b'{"error": {"code": "content_filter"}}'),
    ],
)  # fmt: skip
def test_an_unusable_answer_is_counted_and_not_guessed(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path, answer: Answer
) -> None:
    server.rule = lambda body: answer
    found = values(build(server, tmp_path)(request_))
    assert same(found["judge_bcr"], [math.nan] * 2) and same(found["judge_vsa"], [math.nan] * 2)
    assert found["judge_refused"] == [1.0, 1.0]


@pytest.mark.slow
@pytest.mark.parametrize("score", [0, 6, 3.5, "4", True, None])
def test_a_score_out_of_range_is_refused_but_the_case_stays_good(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path, score: object
) -> None:
    server.rule = lambda body: GOOD if stage(body) == 1 else says({"score": score, "reason": "x"})
    found = values(build(server, tmp_path)(request_))
    assert found["judge_bcr"] == [0.0, 0.0] and same(found["judge_vsa"], [math.nan] * 2)
    assert found["judge_refused"] == [1.0, 1.0]


def test_a_fenced_answer_and_a_stumbling_server_are_no_trouble(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    fenced = says('<think>Hm.</think>\n```json\n{"is_bad_case": true, "reason": "x"}\n```')
    troubles: list[Answer] = [
        (429, b"slow down", {"Retry-After": "3"}), fenced,
        (500, b"boom"), fenced,
        says("garbage"), fenced,
        (200, b"\xff\xfe"), fenced,
    ]  # fmt: skip
    server.rule, server.answers = None, troubles
    waits: list[float] = []
    judge = build(server, tmp_path)
    judge = replace(judge, endpoint=replace(judge.endpoint, sleep=waits.append))
    assert values(judge(request_))["judge_bcr"] == [1.0, 1.0]
    assert len(server.requests) == 8 and waits == [3.0, 0.5, 0.5, 0.5]


def test_answers_are_kept_and_only_the_refused_are_asked_again(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    first = [True]

    def rule(body: dict[str, Any]) -> Answer:
        if first and stage(body) == 1:
            first.pop()
            return says("no")
        return honest(body)

    server.rule = rule
    judge = build(server, tmp_path, retries=0)
    before = judge(request_)
    assert values(before, "base")["judge_refused"] == [1.0, 0.0]
    asked = len(server.requests)
    after = build(server, tmp_path, retries=0)(request_)
    assert values(after, "base")["judge_refused"] == [0.0, 0.0] and len(server.requests) == asked + 2
    assert build(server, tmp_path, concurrency=3)(request_) == after and len(server.requests) == asked + 2


@pytest.mark.slow
def test_whatever_a_judgement_depends_on_is_part_of_its_key(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    def asked(asked_: TinyMetricRequest = request_, **options: Any) -> int:
        before = len(server.requests)
        build(server, tmp_path, **options)(asked_)
        return len(server.requests) - before

    assert asked() == 8 and asked() == 0
    assert asked(timeout=9.0, retries=3, concurrency=2) == 0
    assert asked(model="another") == 8
    assert asked(temperature=None) == 8
    assert asked(criteria={"invert": "be strict"}) == 4  # stage 2 has no criteria
    assert "Criteria: be strict" in server.texts(-1)
    assert asked(default_criteria="be kind") == 4
    assert asked(side=64) == 8
    swapped = {"student@4": {"invert": list(reversed(request_.outputs["student@4"]["invert"]))}}
    assert asked(replace(request_, outputs=swapped)) == 4


def test_questions_are_asked_together_but_not_more_than_allowed(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    def slow(body: dict[str, Any]) -> Answer:
        time.sleep(0.05)
        return honest(body)

    server.rule = slow
    assert values(build(server, tmp_path, concurrency=3)(request_))["judge_vsa"] == [4.0, 4.0]
    assert 2 <= server.busiest <= 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, b"who are you"), "refused a request without a key"),
        ((404, b"no such model"), r"status 404: no such model; check the options of mllm-judge"),
        ((503, b"down"), r"status 503: down \(asked 2 times\)"),
        (lambda handler: time.sleep(0.5), r"no answer within 0.2 s \(asked 2 times\)"),
    ],
)
@pytest.mark.slow
def test_a_failing_endpoint_is_not_measured(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server.rule = lambda body: answer
    with pytest.raises(NotMeasured, match=rf"base, invert, .*{reason}.*0 of 4 judged"):
        build(server, tmp_path, timeout=0.2)(request_)


def test_nobody_there_is_not_measured_unless_everything_is_known(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    found = build(server, tmp_path)(request_)
    server.stop()
    assert build(server, tmp_path)(request_) == found
    with pytest.raises(NotMeasured, match="cannot be reached"):
        build(server, tmp_path / "elsewhere")(request_)


def test_what_was_judged_before_the_endpoint_failed_is_kept(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path
) -> None:
    server.rule = lambda body: honest(body) if len(server.requests) <= 4 else (503, b"down")
    with pytest.raises(NotMeasured, match=r"2 of 4 judged; their answers are kept"):
        build(server, tmp_path, retries=0)(request_)
    server.rule, before = honest, len(server.requests)
    build(server, tmp_path, retries=0)(request_)
    assert len(server.requests) == before + 4


def test_without_pairs_nothing_is_asked(server: ChatServer, request_: TinyMetricRequest, tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="no effect has pairs"):
        build(server, tmp_path)(replace(request_, effects=(EffectInfo("invert", "invert"),)))
    assert not server.requests


def test_criteria_of_an_unknown_effect_are_a_mistake(server: ChatServer, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"criteria.invrt: there is no effect 'invrt'; did you mean 'invert'"):
        build(server, tmp_path, criteria={"invrt": "x"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        (401, f"Incorrect API key provided: {KEY}".encode()),
        (400, f"you sent Bearer {KEY}".encode()),
        (500, f"debug: {KEY}".encode()),
        says({"is_bad_case": True, "reason": f"because {KEY}"}),
        (200, f"not json {KEY}".encode()),
        lambda handler: handler.wfile.write(f"garbage {KEY}\r\n\r\n".encode()),
    ],
)
def test_the_key_is_sent_and_appears_nowhere(
    server: ChatServer,
    request_: TinyMetricRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    answer: Answer,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server.rule = lambda body: answer if stage(body) == 1 else SCORE
    judge = build(server, tmp_path, api_key_env="JUDGE_KEY")
    try:
        told = repr(judge(request_))
    except NotMeasured as error:
        told = "".join(traceback.format_exception(error)) + error.reason
        assert answer is not GOOD
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
    printed = capsys.readouterr()
    assert KEY not in told + repr(judge) + caplog.text + printed.out + printed.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("answers.sqlite") for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_missing_key_is_not_measured(
    server: ChatServer, request_: TinyMetricRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(NotMeasured, match="the environment variable JUDGE_KEY holds no key"):
        build(server, tmp_path, api_key_env="JUDGE_KEY")(request_)
    assert not server.requests


def test_without_an_endpoint_it_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="endpoint"):
        build_judge(JudgeSettings(), BuildContext(root=tmp_path, cache=tmp_path, output=tmp_path))
