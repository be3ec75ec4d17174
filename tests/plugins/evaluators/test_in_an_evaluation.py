"""The evaluators inside ``cldistill eval``: what is absent is listed, what is refused is null and asked about again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from cldistill.manifest.check import check_manifest
from cldistill.testing import ChatServer, catalogue_with, completion, write_pictures
from cldistill.testing.chat_server import Answer
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.evaluation.check import enter
from cldistill_plugins.evaluation.evaluate import evaluate_manifest
from cldistill_plugins.evaluators import plugin
from cldistill_plugins.evaluators.judge_prompts import STAGE_1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path / "cache"))
    server = ChatServer()
    yield server
    server.stop()


def dino(folder: Path) -> Path:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def evaluate(root: Path, server: ChatServer, output: str) -> dict[str, Any]:
    judge = {"endpoint": server.url, "model": "m", "retries": 0, "concurrency": 1}
    told: dict[str, Any] = {
        "images": str(write_pictures(root / "held-out", 2)),
        "teacher_steps": 2,
        "systems": [{"name": "bare", "adapter": None, "steps": 2}],
        "metrics": [
            {"use": "mllm-judge", "options": judge},
            {"use": "dino", "options": {"model": str(root / "dino")}},
            {"use": "clip", "options": {"model": str(root / "no-clip")}},
            {"use": "dreamsim", "options": {"folder": str(root / "no-dreamsim")}},
            {"use": "editreward"},
        ],
    }
    file = root / "eval.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(root, evaluate=told)), encoding="utf-8")
    checked = check_manifest(str(file), catalogue=catalogue_with(plugin), measuring=True)
    evaluate_manifest(checked, enter(checked), root / output, Console(file=io.StringIO()), "eval", "eval")
    return dict(json.loads((root / output / "report.json").read_text()))


@pytest.mark.slow
def test_an_evaluation_lists_what_is_absent_and_asks_again_where_it_was_refused(
    server: ChatServer, tmp_path: Path
) -> None:
    dino(tmp_path / "dino")
    refuse = [True]

    def rule(body: dict[str, Any]) -> Answer:
        if refuse:
            refuse.pop()
            return 200, completion(None, refusal="no")
        stage_1 = body["messages"][0]["content"] == STAGE_1
        return 200, completion('{"is_bad_case": false, "reason": "x"}' if stage_1 else '{"score": 3, "reason": "x"}')

    server.rule = rule
    report = evaluate(tmp_path, server, "first")
    reasons = {entry["component"]: entry["reason"] for entry in report["not_measured"]}
    assert reasons.keys() == {"clip", "dreamsim", "editreward"}
    assert "no folder" in reasons["clip"] and "lacks" in reasons["dreamsim"] and "checkout" in reasons["editreward"]
    (effect, *_) = report["values"]["bare"]
    first = report["values"]["bare"][effect]
    assert first["judge_vsa"] == [None, 3.0] and first["judge_refused"] == [1.0, 0.0]
    assert len(first["dino"]) == 2
    columns = report["metrics"]
    assert columns["judge_refused"]["percent"] and columns["judge_bcr"]["better"] == "lower"
    assert columns["dino"] == {
        "title": "DINO to the source", "better": "higher", "component": "dino", "percent": False,
    }  # fmt: skip
    before = len(server.requests)
    second = evaluate(tmp_path, server, "second")["values"]["bare"][effect]
    assert second["judge_vsa"] == [3.0, 3.0] and second["judge_refused"] == [0.0, 0.0]
    assert second["dino"] == first["dino"] and len(server.requests) == before + 2
