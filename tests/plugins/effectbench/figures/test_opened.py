"""A finished run opened again: its weights, its pairs, and what is said where there is nothing to open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cldistill import testing
from cldistill.errors import CheckpointError, DataError
from cldistill_plugins.effectbench.figures.opened import OpenedRun, open_run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with checkpoints after two and four."""
    train = {"generator_steps": 4, "batch_size": 2, "checkpoint_every": 2, "keep": 2, "device": "cpu"}
    return testing.run_manifest(tmp_path_factory.mktemp("opened"), train=train).folder


def opened(folder: Path, **options: object) -> OpenedRun:
    return open_run(folder, catalogue=testing.catalogue_with(), **options)  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def copied(folder: Path, copy: Path, old: str, new: str) -> Path:
    """The run with something changed in its manifest."""
    copy.mkdir()
    (copy / "checkpoints").symlink_to(folder / "checkpoints")
    text = (folder / "manifest.resolved.yaml").read_text()
    assert old in text
    (copy / "manifest.resolved.yaml").write_text(text.replace(old, new))
    return copy


@pytest.mark.parametrize(("step", "expected"), [(None, 4), (2, 2)])
def test_the_slots_hold_the_weights_of_the_checkpoint(folder: Path, step: int | None, expected: int) -> None:
    before = files_of(folder)
    found = opened(folder, step=step)
    saved = load_file(folder / f"checkpoints/step-{expected:06d}/student.safetensors")
    assert found.step == expected and found.notes == ()
    assert all(torch.equal(value, saved[name]) for name, value in found.run.slots.state("student").items())
    assert files_of(folder) == before


def test_only_the_chosen_pairs_are_prepared(folder: Path) -> None:
    found = opened(folder, effects=["soften"], pairs=2)
    assert {name: len(examples) for name, examples in found.run.dataset.pools.items()} == {"soften": 2}
    assert found.effects == ("soften",)


@pytest.mark.slow
def test_a_number_of_effects_is_spread_over_the_list(folder: Path) -> None:
    assert opened(folder, effects=1).effects == ("invert",)
    assert opened(folder).effects == opened(folder, effects=9).effects == ("invert", "soften")


def test_an_update_holds_copies_of_one_pair_and_its_teacher(folder: Path) -> None:
    found = opened(folder, pairs=2)
    context = found.update("soften", 1, copies=3)
    assert context.batch.size == 3 and len({item.key for item in context.batch.items}) == 1
    assert context.batch.target is not None and torch.equal(context.batch.target[0], context.batch.target[2])
    assert found.run.slots.mounted == found.run.teachers.digest("soften")
    other = found.update("soften", 0).batch
    assert other.items[0].key != context.batch.items[0].key


def test_what_it_draws_depends_on_effect_and_pair_alone(folder: Path) -> None:
    found = opened(folder)
    noise = found.update("invert", 0).random.normal((2, 2), "noise")
    assert torch.equal(noise, found.update("invert", 0, copies=4).random.normal((2, 2), "noise"))
    assert not torch.equal(noise, found.update("soften", 0).random.normal((2, 2), "noise"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step": 3}, CheckpointError, "no checkpoint of step 3; it has 2, 4"),
        ({"effects": ["sofen"]}, DataError, "no effect 'sofen' with pairs; did you mean 'soften'"),
        ({"pairs": 99}, DataError, "pairs, but 99 were asked for"),
        ({"trained": ["studnt"]}, DataError, "no slot 'studnt'; did you mean 'student'"),
    ],
)
def test_what_is_not_there_is_named(folder: Path, options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        opened(folder, **options)


def test_a_slot_must_have_been_trained(folder: Path, tmp_path: Path) -> None:
    assert opened(folder, trained=["student"]).step == 4
    late = copied(folder, tmp_path / "run", "from_step: 0", "from_step: 2")
    message = r"at step 2 the slot 'student' of 'tiny' has not been trained yet \(it begins after step 2\)"
    with pytest.raises(DataError, match=message):
        opened(late, step=2, trained=["student"])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.resolved\.yaml is missing"):
        open_run(tmp_path)


def test_another_manifest_than_the_checkpoints_is_noted(folder: Path, tmp_path: Path) -> None:
    (note,) = opened(copied(folder, tmp_path / "run", "batch_size: 2", "batch_size: 3")).notes
    assert "another version of cldistill" in note
