"""Checkpoints: round trip, same bytes, kept ones, and every kind of damage."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from cldistill.errors import CheckpointError
from cldistill.manifest.models import SlotName
from cldistill.training import checkpoint
from cldistill.training.step import module_key

Groups = dict[str, dict[str, torch.Tensor]]


def groups(value: float = 1.0) -> Groups:
    return {
        "student": {"b.lora_A.weight": torch.full((2, 3), value), "a.lora_B.weight": torch.arange(4.0)},
        "optimizer-student": {"step": torch.tensor(7), "m": torch.randn(3, generator=torch.Generator().manual_seed(0))},
    }


def save(root: Path, step: int, keep: int = 3) -> Path:
    return checkpoint.save(root, step, groups(float(step)), {"name": "run", "bad": None}, keep)


def warnings_of(root: Path) -> tuple[checkpoint.Checkpoint | None, list[str]]:
    said: list[str] = []
    return checkpoint.latest(root, said.append), said


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_round_trip(tmp_path: Path) -> None:
    path = save(tmp_path, 100)
    assert path == tmp_path / "step-000100"
    found, said = warnings_of(tmp_path)
    assert found is not None and not said
    assert (found.step, found.path, found.meta) == (100, path, {"name": "run", "bad": None})
    assert found.groups == ("optimizer-student", "student")
    for name, tensors in groups(100.0).items():
        loaded = found.load(name)
        assert loaded.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(loaded[key], tensor) and loaded[key].dtype == tensor.dtype


def test_a_slot_cannot_have_the_file_of_a_terms_module(tmp_path: Path) -> None:
    """A slot may be called ``module-head``, but by no name that the module of a term ``head`` has."""
    key = module_key("head")
    with pytest.raises(ValidationError, match="pattern"):
        TypeAdapter(SlotName).validate_python(key)
    slot = TypeAdapter(SlotName).validate_python("module-head")
    names = (slot, f"optimizer-{slot}", key, f"optimizer-{key}")
    held = {name: {"value": torch.tensor(float(place))} for place, name in enumerate(names)}
    path = checkpoint.save(tmp_path, 1, held, {}, 1)
    assert len(list(path.glob("*.safetensors"))) == 4
    assert [checkpoint.read(path).load(name)["value"].item() for name in names] == [0.0, 1.0, 2.0, 3.0]


def test_unknown_group_is_a_clear_error(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found, _ = warnings_of(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError, match="holds no 'critic', only optimizer-student, student"):
        found.load("critic")


def test_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    first = save(tmp_path / "a", 5)
    reordered = {name: dict(reversed(tensors.items())) for name, tensors in reversed(groups(5.0).items())}
    second = checkpoint.save(tmp_path / "b", 5, reordered, {"bad": None, "name": "run"}, 3)
    files = sorted(path.name for path in first.iterdir())
    assert files == ["checkpoint.json", "optimizer-student.safetensors", "student.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_views_shared_storage_and_parameters_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"row": whole[1], "column": whole.T[2], "whole": whole, "again": whole, "weight": torch.nn.Parameter(whole)}
    checkpoint.save(tmp_path, 1, {"student": state}, {}, 1)
    found, _ = warnings_of(tmp_path)
    assert found is not None
    loaded = found.load("student")
    assert all(torch.equal(loaded[key], value.detach()) for key, value in state.items())


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (100, 200, 300, 400):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000300", "step-000400"]


def test_keep_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        save(tmp_path, 1, keep=0)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert warnings_of(tmp_path / "nowhere") == (None, [])
    assert warnings_of(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: flip_a_bit(folder / "student.safetensors"), "content of student.safetensors does not match"),
        (lambda folder: (folder / "student.safetensors").write_bytes(b"{"), "has 1 bytes instead of"),
        (lambda folder: (folder / "student.safetensors").unlink(), "student.safetensors is missing"),
        (lambda folder: (folder / "checkpoint.json").unlink(), "half-written: checkpoint.json is missing"),
        (lambda folder: (folder / "checkpoint.json").write_text('{"step": 2'), "checkpoint.json cannot be read"),
        (lambda folder: (folder / "checkpoint.json").write_text("[]"), "checkpoint.json cannot be read"),
        (
            lambda folder: (folder / "checkpoint.json").write_text(
                (folder / "checkpoint.json").read_text().replace('"run"', '"fun"')
            ),
            "checkpoint.json does not match its own hash",
        ),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest)
    found, said = warnings_of(tmp_path)
    assert found is not None and found.step == 1
    assert len(said) == 1
    assert str(newest) in said[0] and reason in said[0]


def test_all_damaged_is_an_error_that_lists_them(tmp_path: Path) -> None:
    for step in (1, 2):
        flip_a_bit(save(tmp_path, step) / "student.safetensors")
    with pytest.raises(CheckpointError) as error:
        warnings_of(tmp_path)
    text = str(error.value)
    assert "step-000001" in text and "step-000002" in text and "delete" in text


def test_another_format_is_refused(tmp_path: Path) -> None:
    index = save(tmp_path, 1) / "checkpoint.json"
    body = json.loads(index.read_text())
    del body["digest"]
    body["format"] = 99
    index.write_text(json.dumps({**body, "digest": checkpoint._digest(body)}))
    with pytest.raises(CheckpointError, match="format 99"):
        warnings_of(tmp_path)


def test_going_back_behind_damage_never_deletes_the_last_good_one(tmp_path: Path) -> None:
    save(tmp_path, 100)
    for step in (200, 300):
        flip_a_bit(save(tmp_path, step) / "student.safetensors")
    save(tmp_path, 150, keep=1)  # the run went on from 100; 200 and 300 are still there, damaged
    found, said = warnings_of(tmp_path)
    assert found is not None and found.step == 150
    assert len(said) == 2
    save(tmp_path, 200, keep=1)  # and gets to replace them
    found, _ = warnings_of(tmp_path)
    assert found is not None and found.step == 200


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, keep=1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from cldistill.training import checkpoint
root = Path(sys.argv[1])
state = {"student": {"w": torch.ones(3)}}
checkpoint.save(root, 1, state, {}, 3)
write = checkpoint._write_group
def die(folder, name, tensors):
    write(folder, name, tensors)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoint._write_group = die
checkpoint.save(root, 2, state, {}, 3)
"""


@pytest.mark.slow
def test_a_writer_killed_half_way_is_named_and_swept_up_by_the_next(tmp_path: Path, interpreter: Any) -> None:
    done = interpreter.run("-c", KILLED, tmp_path)
    assert done.returncode == -signal.SIGKILL
    found, said = warnings_of(tmp_path)
    assert found is not None and found.step == 1
    assert len(said) == 1 and ".step-000002." in said[0] and "half-written" in said[0]
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]
