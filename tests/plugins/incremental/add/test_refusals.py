"""Everything that `add` refuses, it refuses before it writes anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cldistill.errors import CldistillError, CollectionError
from cldistill.training.checkpoint import read, save
from cldistill_plugins.incremental import prepare
from cldistill_plugins.incremental.edit import remove_effect, rename_effect
from cldistill_plugins.incremental.effects import spread
from cldistill_plugins.incremental.prepare import AddRequest, prepare_growth

from .conftest import World, contents, invoke

pytestmark = pytest.mark.slow

NEW = "new/gilded frame"


def damage_weights(world: World) -> None:
    file = world.collection / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")


def another_run(world: World) -> None:
    (world.root / "run-plus-1/checkpoints/step-000001").mkdir(parents=True)
    shutil.copytree(world.root / "run/checkpoints", world.root / "run-plus-1/checkpoints", dirs_exist_ok=True)


def no_picture(world: World) -> None:
    (world.root / NEW / "target/001.png").write_bytes(b"not a picture")


def lost_target(world: World) -> None:
    (world.root / NEW / "target/002.png").unlink()


def no_description(world: World) -> None:
    (world.root / NEW / "effect.json").unlink()


def no_manifest(world: World) -> None:
    (world.collection / "manifest.resolved.yaml").unlink()


def removed(world: World) -> None:
    remove_effect(world.collection, "soften")


def renamed(world: World) -> None:
    rename_effect(world.collection, "soften", "blur")


def nothing(world: World) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (nothing, ("--name", "soften"), "'soften': the collection has an effect of that name"),
        (renamed, ("--name", "soften"), "cannot be told apart: as tokens the first is the second"),
        (removed, ("--name", "soften"), "under which the weights still know 'soften', which was removed"),
        (nothing, ("--set", "base.options.resolution=32"), r"was made on another base \(tiny-base"),
        (nothing, ("--set", "base.options.width=64"), "have another shape than the base's"),
        (damage_weights, (), "one of the two was changed or damaged"),
        (no_picture, (), r"001\.png: cannot be read as a picture"),
        (lost_target, (), r"002\.png: has no after-picture of the same name"),
        (no_description, (), "nothing says which prompt its teacher hears; give --prompt"),
        (no_manifest, (), r"manifest\.resolved\.yaml: .*a collection is the whole folder"),
        (another_run, (), "belongs to another manifest"),
        (nothing, ("--name", "a", "--name", "b"), "--name was given 2 times for 1 new effects"),
        (nothing, ("--name", "general"), "'general' is the name of the general pool"),
        (nothing, ("--set", "router.options.new=0"), "new must be above 0"),
        (nothing, ("--set", "losses.0.weigth=2"), "did you mean 'weight'"),
        (nothing, ("--checkpoint", "nowhere"), "--checkpoint nowhere: it is half-written: checkpoint.json is missing"),
    ],
)  # fmt: skip
def test_it_says_why_and_writes_nothing(
    world: World, tmp_path: Path, spoil: Callable[[World], None], arguments: tuple[str, ...], message: str
) -> None:  # fmt: skip
    spoil(world)
    before = contents(tmp_path)
    text = world.add(world.root / NEW, *arguments, code=1)
    assert re.search(message, text), text
    assert contents(tmp_path) == before


DAMAGED: list[tuple[str, Any]] = [
    *((part, value) for part in ("effects", "losses", "slots", "train") for value in (None, 5, [5], {}, "gone")),
    ("slots", {"student": 5}), ("train", {"batch_size": "x"}), ("effects", [{"prompt": "x"}]), ("name", "gone"),
    ("targets", 5), ("evaluate", 5), ("samples", {"images": "x"}), ("prompts", [5]), ("base", 5), ("general", {"images": "x"}),
    ("slots", {"critic": {"rank": 2}}),
]  # fmt: skip


def test_a_damaged_manifest_of_a_collection_is_named(world: World) -> None:
    path = world.collection / "manifest.resolved.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    request = AddRequest(world.collection, spread([world.root / NEW], [], [], []))
    assert prepare_growth(request).growth.known["name"] == whole["name"]
    for part, value in DAMAGED:
        rest = {key: old for key, old in whole.items() if key != part}
        path.write_text(yaml.safe_dump(rest if value == "gone" else {**rest, part: value}))
        with pytest.raises(CldistillError) as error:
            prepare_growth(request)
        named = re.search(
            r"manifest\.resolved\.yaml: is .*copy the whole folder again|\(made by add\)", str(error.value)
        )
        assert named, (part, value, error.value)


def test_each_mistake_of_a_damaged_manifest_has_its_line_and_its_file(world: World) -> None:
    request = AddRequest(world.collection, spread([world.root / NEW], [], [], []))
    for folder in (world.collection, world.collection.parent):
        path = folder / "manifest.resolved.yaml"
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole.replace("batch_size: 2", "batch_size: many").replace("use: pdsr", "uses: pdsr"))
        with pytest.raises(CollectionError, match="copy the whole folder again") as error:
            prepare_growth(request)
        assert re.search(rf"{re.escape(str(path))}:\d+: train\.batch_size: ", str(error.value))
        assert "router.uses: unknown key" in str(error.value)
        path.write_text(whole)
    prepare_growth(request)


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), AttributeError("x"), ValueError("x")])
def test_an_error_of_the_growth_itself_is_not_taken_for_damage(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(prepare, "growing_manifest", fail)
    with pytest.raises(type(error), match="x"):
        prepare_growth(AddRequest(world.collection, spread([world.root / NEW], [], [], [])))


def test_a_manifest_without_the_keys_that_came_later_is_whole(world: World) -> None:
    path = world.collection / "manifest.resolved.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    request = AddRequest(world.collection, spread([world.root / NEW], [], [], []))
    expected = prepare_growth(request).text
    for section, key in (("train", "max_bad_steps"), ("train", "global_batch"), ("samples", "effects")):
        whole[section].pop(key)
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    assert prepare_growth(request).text == expected


@pytest.mark.parametrize("part", ["prompts", "router", "samples", "evaluate"])
def test_a_catalogue_is_edited_beside_damaged_settings(world: World, part: str) -> None:
    path = world.collection / "manifest.resolved.yaml"
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**whole, part: {"use": "x", "options": [5]}}))
    assert rename_effect(world.collection, "soften", "blur").effect.name == "blur"
    edited = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert edited[part]["options"] == [5] and [effect["name"] for effect in edited["effects"]] == ["invert", "blur"]


def test_paths_that_are_no_effect_and_no_collection(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    for path, message in (
        ("nowhere", "nowhere: no such folder of pairs or teacher file"),
        ("empty", "holds no pairs: it is empty"),
        ("notes.txt", "notes.txt: is no list of pairs"),
    ):
        assert message in world.add(tmp_path / path, "--prompt", "x", code=1)
    text = invoke("add", world.collection / "pytorch_lora_weights.safetensors", world.root / NEW, code=1)
    assert "name the collection's folder" in text
    assert "no such collection" in invoke("add", tmp_path / "gone", world.root / NEW, code=1)


def test_a_checkpoint_that_is_not_of_these_weights_is_refused(world: World, tmp_path: Path) -> None:
    own = read(world.root / "run/checkpoints/step-000005")
    groups = {name: own.load(name) for name in own.groups}
    earlier = save(tmp_path / "earlier", 4, groups, own.meta, keep=1)
    other = save(tmp_path / "other", 5, groups, {**own.meta, "manifest": "another"}, keep=1)
    for folder, words in ((earlier, "of step 4 instead of 5"), (other, "is of another run")):
        assert words in world.add(world.root / NEW, "--checkpoint", folder, code=1)
    fitting = save(tmp_path / "copied", 5, groups, own.meta, keep=1)
    assert f"go on from {fitting}" in world.add(world.root / NEW, "--checkpoint", fitting, "--plan")


def test_a_slot_of_another_rank_cannot_go_on(world: World) -> None:
    text = world.add(world.root / NEW, "--set", "slots.student.rank=4", "--set", "slots.critic.rank=4", code=1)
    assert "its slot 'student' has rank 2 and 12 modules, and the slot here rank 4" in text
    larger = ("--set", "slots.student.rank=4", "--set", "slots.critic.rank=4", "--anew", "--plan")
    assert "begin anew" in world.add(world.root / NEW, *larger)  # a collection may grow in rank, too
