"""The template captioner: offline, deterministic, with generic subjects."""

from __future__ import annotations

import pytest

from cldistill.records import EffectInfo
from cldistill_plugins.collectionlora.captioners import TemplateCaptioner, check_template, generic


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("turn the picture into manga", "turn the picture into manga"),
        ("make the cat a crystal statue", "make the subject a crystal statue"),
        ("This woman wears a gold mask", "The subject wears a gold mask"),
        ("turn my dogs to stone", "turn the subjects to stone"),
        ("turn the man into a cat", "turn the subject into a cat"),
        ("a cathedral behind the category", "a cathedral behind the category"),
        ("light the background, not the person", "light the background, not the person"),
    ],
)
def test_definite_subjects_become_generic(prompt: str, expected: str) -> None:
    assert generic(prompt) == expected


def test_the_template_is_filled_on_one_line() -> None:
    effect = EffectInfo("gold-frame", "put the cat\n in a  frame")
    captioner = TemplateCaptioner("Apply {name}: {prompt}.")
    assert captioner.caption(effect) == "Apply gold-frame: put the subject in a frame."
    assert captioner.preview(effect) == captioner.caption(effect)


def test_braces_in_a_prompt_are_left_alone() -> None:
    assert TemplateCaptioner().caption(EffectInfo("x", "add {curly} braces")) == "add {curly} braces"


@pytest.mark.parametrize("template", ["no fields", "{effect}", "{prompt", "{prompt} {0}", "{prompt.__class__}"])
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"template|must hold"):
        check_template(template)
