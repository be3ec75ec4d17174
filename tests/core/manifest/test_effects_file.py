"""Effects in a file of their own, and one teacher for all that name none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cldistill.errors import ManifestError
from cldistill.manifest.load import load_manifest

REST = """
base: {use: b}
router: {use: r}
prompts: {use: p}
losses: [{use: l}]
slots: {student: {}}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_of_effects_has_its_own_places_and_its_own_folder_for_paths(tmp_path: Path) -> None:
    write(tmp_path / "bank/effects.yaml", "- {name: a, prompt: do a, pairs: a}\n- {name: b, prompt: do b, pairs: b}\n")
    file = load_manifest(write(tmp_path / "m.yaml", f"cldistill: 1\nname: n\neffects: bank/effects.yaml\n{REST}"))
    assert [effect.pairs for effect in file.manifest.effects] == [tmp_path / "bank/a", tmp_path / "bank/b"]
    assert file.where("effects", 1, "prompt").endswith("bank/effects.yaml:2: effects.1.prompt")


def test_an_extending_manifest_and_set_may_name_another_file(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "[{name: a, prompt: do a}]")
    write(tmp_path / "two.yaml", "[{name: a, prompt: do a}, {name: b, prompt: do b}]")
    write(tmp_path / "m.yaml", f"cldistill: 1\nname: n\neffects: not-there.yaml\n{REST}")
    over = write(tmp_path / "over.yaml", "extends: m.yaml\neffects: two.yaml\n")
    assert len(load_manifest(over).manifest.effects) == 2
    values = ["effects.a.prompt=do it", f"effects={tmp_path / 'one.yaml'}"]
    assert [effect.prompt for effect in load_manifest(over, values).manifest.effects] == ["do it"]


def test_effects_without_a_teacher_get_the_one_of_the_manifest(tmp_path: Path) -> None:
    effects = "[{name: a, prompt: do a}, {name: b, prompt: do b, teacher: {use: own}}]"
    text = f"cldistill: 1\nname: n\nteacher: {{use: shared, options: {{x: 1}}}}\neffects: {effects}\n{REST}"
    first, second = load_manifest(write(tmp_path / "m.yaml", text)).manifest.effects
    assert first.teacher is not None
    assert second.teacher is not None
    assert (first.teacher.use, first.teacher.options) == ("shared", {"x": 1})
    assert second.teacher.use == "own"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("name: a", "a file of effects is a list"), ("- {nam: a}", "effects.yaml:1: effects.0")],
)
def test_a_file_that_is_missing_or_no_list_is_told_with_its_place(
    tmp_path: Path, content: str | None, said: str
) -> None:
    if content is not None:
        write(tmp_path / "effects.yaml", content)
    path = write(tmp_path / "m.yaml", f"cldistill: 1\nname: n\neffects: effects.yaml\n{REST}")
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert said in str(caught.value)
