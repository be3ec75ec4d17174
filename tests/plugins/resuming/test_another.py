"""A run can be lengthened and observed otherwise; what else has changed is told key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cldistill.errors import CheckpointError
from cldistill.manifest.resolved import manifest_digest, resolved_text
from cldistill.training import checkpoint
from cldistill_plugins.resuming import another
from cldistill_plugins.resuming.another import changes, refuse_another

THEN = Path("manifest.resolved.yaml")


def test_what_has_changed_is_told_key_by_key_with_both_values(world: Any) -> None:
    then = resolved_text(world.check())
    assert changes(world.check("train.generator_steps=9", "evaluate=null"), then, THEN) == []
    assert changes(world.check("train.seed=7"), then, THEN) == ["train.seed: 0 then, 7 now"]
    Image.effect_noise((8, 8), 100).convert("RGB").save(world.root / "data/manga/source/a.png")
    assert changes(world.check(), then, THEN) == ["manga: its files are not those of then"]


def test_a_longer_run_goes_on_and_another_one_is_refused(world: Any, tmp_path: Path) -> None:
    checked, folder = world.check("train.generator_steps=20"), tmp_path / "out"
    checkpoint.save(folder / "checkpoints", 20, {}, {"manifest": manifest_digest(checked)}, keep=1)
    (folder / "manifest.resolved.yaml").write_text(resolved_text(checked), encoding="utf-8")
    refuse_another(world.check("train.generator_steps=99", "train.checkpoint_every=5"), folder)
    with pytest.raises(
        CheckpointError, match=r"step-000020 is beyond train\.generator_steps: 19; set it to 20 or more"
    ):
        refuse_another(world.check("train.generator_steps=19"), folder)
    told = r"(?s)seed: 0 then, 3 now\nput .*--set slots\.student\.checkpoint=/.*step-000020"
    with pytest.raises(CheckpointError, match=told):
        refuse_another(world.check("train.generator_steps=20", "train.seed=3"), folder)


def test_a_run_of_another_manifest_is_refused_before_anything_is_loaded(world: Any, tmp_path: Path) -> None:
    checked, folder = world.check("train.generator_steps=20"), tmp_path / "out"
    checkpoint.save(folder / "checkpoints", 10, {}, {"manifest": "something else"}, keep=1)
    with pytest.raises(CheckpointError, match=r"out.*step-000010 belongs to another manifest.*choose another"):
        refuse_another(checked, folder, wanted=False)
    checkpoint.save(folder / "checkpoints", 20, {}, {"manifest": manifest_digest(checked)}, keep=1)
    refuse_another(checked, folder, wanted=True)


@pytest.mark.parametrize(
    "text", [b"\xff", b"[", b"[" * 9999, b"[]", b"a: 1", b"", b"cldistill: 1\nslots: 5", b"a: \x07"]
)
def test_a_damaged_record_of_the_run_hides_the_keys_and_no_more(world: Any, tmp_path: Path, text: bytes) -> None:
    folder = tmp_path / "out"
    checkpoint.save(folder / "checkpoints", 10, {}, {"manifest": "something else"}, keep=1)
    (folder / "manifest.resolved.yaml").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"step-000010 belongs to another manifest.*choose another"):
        refuse_another(world.check(), folder)


@pytest.mark.parametrize("name", ["checkpoints", "samples", "pictures", "metrics.jsonl", "manifest.resolved.yaml"])
def test_a_file_for_a_folder_or_the_reverse_is_told_at_once_and_not_after_training(
    world: Any, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    refuse_another(world.check(), folder)
    if "." in name:
        (folder / name).mkdir()
    else:
        (folder / name).write_text("x")
    with pytest.raises(CheckpointError, match=rf"{name}: is a .*, where a run has a .*; move it away"):
        refuse_another(world.check(), folder)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x"), ValueError("x")])
def test_an_error_of_the_comparison_is_not_taken_for_a_damaged_record(
    world: Any, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    folder = tmp_path / "out"
    checkpoint.save(folder / "checkpoints", 10, {}, {"manifest": "something else"}, keep=1)
    (folder / "manifest.resolved.yaml").write_text(resolved_text(world.check()), encoding="utf-8")
    monkeypatch.setattr(another, "decisive", fail)
    with pytest.raises(type(error), match="x"):
        refuse_another(world.check(), folder)


def test_what_the_run_of_then_started_from_and_measured_is_not_looked_for(world: Any) -> None:
    """It may be gone, or on the hub, about which nobody is asked."""
    then = world.check()
    text = yaml.safe_load(resolved_text(then))
    text["slots"]["student"] |= {"init": "somebody/collection@" + 40 * "a", "moments": "8bit"}
    text["evaluate"] = {"images": "held", "systems": [{"name": "a", "adapter": "somebody/else@" + 40 * "b"}]}
    told = changes(then, yaml.safe_dump(text), THEN)
    assert {"slots.student.init", "slots.student.moments"} <= {line.partition(":")[0] for line in told}


def test_the_steps_decide_a_rate_that_falls_by_the_last_of_them(world: Any) -> None:
    falling = "slots.student.lr=[{from_step: 0, lr: 1.0e-3, end_lr: 1.0e-5}]"
    held = "slots.student.lr=[{from_step: 0, lr: 1.0e-3, end_lr: 1.0e-5}, {from_step: 5, lr: 1.0e-5}]"
    then, longer = world.check(falling), world.check(falling, "train.generator_steps=999")
    assert changes(longer, resolved_text(then), THEN)[0].startswith("train.generator_steps: ")
    assert manifest_digest(longer) != manifest_digest(then)
    assert changes(world.check(held, "train.generator_steps=999"), resolved_text(world.check(held)), THEN) == []


def test_resume_wants_something_to_resume(world: Any, tmp_path: Path) -> None:
    refuse_another(world.check(), tmp_path / "new", wanted=False)
    with pytest.raises(CheckpointError, match="new holds no checkpoint to resume; leave out --resume"):
        refuse_another(world.check(), tmp_path / "new", wanted=True)
