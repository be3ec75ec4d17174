"""A key of a study with three systems, and evaluators to fill in its questions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cldistill_plugins.evaluation.study.key import QUESTIONS, StudyKey, StudySet, StudySystem

SYSTEMS = ("base", "lightning", "ours")


@pytest.fixture
def key() -> StudyKey:
    """Six sets; the candidate ``t<set><place>`` is another system in every set."""
    sets = tuple(
        StudySet(
            id=f"s{index}", effect="ink", picture=f"p{index}",
            candidates={f"t{index}{place}": SYSTEMS[(index + place) % 3] for place in range(3)},
        )
        for index in range(6)
    )  # fmt: skip
    systems = tuple(StudySystem(name=name, title=name.capitalize()) for name in SYSTEMS)
    return StudyKey(
        format=1, study="abc", created="2026-10-08", evaluation="drawn", systems=systems, questions=QUESTIONS, sets=sets
    )


@pytest.fixture
def write_answers(tmp_path: Path, key: StudyKey) -> Callable[..., Path]:
    """Write the file of an evaluator who finds the system ``best[i]`` of set ``i`` the best in every respect."""

    def write(name: str, best: list[str], **changes: Any) -> Path:
        answers = {}
        for one, system in zip(key.sets, best, strict=False):
            token = next(token for token, found in one.candidates.items() if found == system)
            answers[one.id] = {question.name: token for question in key.questions}
        found = {
            "format": 1, "study": "abc", "evaluator": {"name": name, "id": name.lower()}, "answers": answers,
        }  # fmt: skip
        path = tmp_path / f"answers-{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(found | changes))
        return path

    return write
