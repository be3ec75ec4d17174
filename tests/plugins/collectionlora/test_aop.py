"""AOP as a prompt isolator, and its settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cldistill.component import BuildContext
from cldistill.errors import OptionsError
from cldistill.protocols import PromptIsolator
from cldistill.records import EffectInfo, Prompts
from cldistill_plugins.collectionlora.aop import AopSettings, build_aop, describe_aop
from cldistill_plugins.collectionlora.teacher_prompts import TeacherPromptsSettings, build_teacher_prompts
from cldistill_plugins.collectionlora.triggers import trigger_word

EFFECTS = (EffectInfo("manga-tone", "turn the cat into manga"), EffectInfo("gold-frame", "frame it in gold"))


def context(tmp_path: Path, weights: bool = True) -> BuildContext:
    return BuildContext(tmp_path, tmp_path / "cache", tmp_path / "out", effects=EFFECTS, weights=weights)


def test_student_and_teacher_are_told_different_things(tmp_path: Path) -> None:
    isolator: PromptIsolator = build_aop(AopSettings(), context(tmp_path))
    word = trigger_word("manga-tone")
    assert isolator.isolate(EFFECTS[0]) == Prompts(
        student=f"{word} turn the subject into manga", teacher="turn the cat into manga", unconditional="", trigger=word
    )


def test_general_instructions_are_the_same_for_all(tmp_path: Path) -> None:
    prompts = build_aop(AopSettings(), context(tmp_path)).general("make the cat darker")
    assert prompts == Prompts("make the cat darker", "make the cat darker", "", "")


def test_words_and_captions_of_ones_own(tmp_path: Path) -> None:
    settings = AopSettings(triggers={"gold-frame": "zorvex"}, captions={"gold-frame": "a heavy golden frame"})
    isolator = build_aop(settings, context(tmp_path))
    assert isolator.isolate(EFFECTS[1]).student == "zorvex a heavy golden frame"
    assert isolator.isolate(EFFECTS[0]).trigger == trigger_word("manga-tone")


@pytest.mark.parametrize("option", ["triggers", "captions"])
def test_unknown_effects_name_the_nearest(tmp_path: Path, option: str) -> None:
    settings = AopSettings.model_validate({option: {"goldframe": "zorvex"}})
    with pytest.raises(OptionsError, match=rf"{option}.goldframe: there is no effect .* did you mean 'gold-frame'"):
        build_aop(settings, context(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captioner": "vlm"}, "needs `endpoint` and `model`"),
        ({"captioner": "gpt"}, "'template' or 'vlm'"),
        ({"triggers": {"a": "two words"}}, "is no trigger"),
        ({"triggers": {"a": "ab"}}, "is no trigger"),
        ({"template": "{effect}"}, "must hold"),
        ({"endpoint": "localhost:8000"}, "must be an http"),
        ({"endpoint": "http://me:secret@host/v1"}, "must hold no key"),
        ({"endpoint": "https://host/v1?key=1"}, "must hold no key"),
        ({"endpoint": "http://host:99999/v1"}, "[Pp]ort"),
        ({"api_key_env": "not a name"}, "pattern"),
        ({"timeout": 0}, "greater than 0"),
        ({"retries": -1}, "greater than or equal to 0"),
        ({"captoiner": "vlm"}, "Extra inputs"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AopSettings.model_validate(options)


def test_what_it_needs() -> None:
    assert not describe_aop(AopSettings()).pairs
    assert describe_aop(AopSettings(captioner="vlm", endpoint="http://localhost:1/v1", model="m")).pairs


def test_looking_asks_no_endpoint(tmp_path: Path) -> None:
    """`check` and `plan` build with ``weights=False``."""
    from PIL import Image

    for side in ("source", "target"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pairs" / side / "1.png")
    effect = EffectInfo("manga-tone", "into manga", tmp_path / "pairs")
    settings = AopSettings(captioner="vlm", endpoint="http://127.0.0.1:9/v1", model="qwen-vl")
    prompts = build_aop(settings, context(tmp_path, weights=False)).isolate(effect)
    assert prompts.student == f"{prompts.trigger} (a caption that qwen-vl will write for: into manga)"


@pytest.mark.slow
def test_the_settings_import_no_torch() -> None:
    code = (
        "import sys; from cldistill_plugins.collectionlora.aop import AopSettings, describe_aop; "
        "describe_aop(AopSettings()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_aop_student_and_teacher_hear_the_same_prompt_and_prompts_may_collide(tmp_path: Path) -> None:
    isolator: PromptIsolator = build_teacher_prompts(TeacherPromptsSettings(), context(tmp_path))
    first, second = (isolator.isolate(EffectInfo(name, "apply the style", None)) for name in ("manga", "gold"))
    assert first == second == Prompts("apply the style", "apply the style")
    assert isolator.general("add a hat") == Prompts("add a hat", "add a hat")
