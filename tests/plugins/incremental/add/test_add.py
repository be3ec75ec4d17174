"""Growing a collection, end to end: pairs or a file, old teachers gone, prompts to the letter, and going on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cldistill.training import step as step_module
from cldistill.training import train as train_module
from cldistill.training.metrics_log import read_metrics
from cldistill_plugins.incremental.edit import rename_effect
from cldistill_plugins.incremental.effects import Given
from cldistill_plugins.incremental.estimate import STARTING, STEPPING, Pace, StageTime, parts_of
from cldistill_plugins.incremental.folder import read_folder
from cldistill_plugins.incremental.prepare import AddRequest, prepare_growth
from cldistill_plugins.incremental.print_plan import expected_calls, stream_chances

from .conftest import World, contents, invoke

pytestmark = pytest.mark.slow

WEIGHTS = "collection/pytorch_lora_weights.safetensors"
Quick = Callable[[str], tuple[str, str]]


def test_from_pairs_with_the_old_teachers_gone(world: World, quick: Quick) -> None:
    shutil.rmtree(world.root / "teachers")
    old, before = world.effects(), contents(world.root / "run")
    text = world.add(world.root / "new/gilded frame", "--steps", "8", *quick("gilded"))
    assert contents(world.root / "run") == before  # never over the old
    grown = world.effects("run-plus-1")
    assert grown[:2] == old  # triggers and prompts of the old effects, to the letter
    assert old[0]["prompt"].endswith(" its colours,  turned")
    assert (grown[2]["name"], grown[2]["teacher_prompt"]) == ("gilded", "put it in a gilded frame")
    for words in (
        "2 effects + 1 = 3",
        "the collection, 4 steps",
        "from-pairs, 2 steps of training",
        "go on from",
        "Cost:",
        "at the pace of the collection's run: preparation ",
        "teacher of gilded",
        "--effect gilded",  # what it offers to try is the new one
    ):
        assert words in text
    taught = {
        pool
        for line in read_metrics(world.root / "run-plus-1/metrics.jsonl")
        for u in line["updates"]
        for pool in u["pools"]
    }
    assert taught == {"invert", "soften", "gilded", "general"}
    assert not _same(load_file(world.root / "run" / WEIGHTS), load_file(world.root / "run-plus-1" / WEIGHTS))


def test_the_time_counts_all_that_a_growth_does(world: World, quick: Quick) -> None:
    request = AddRequest(world.collection, [Given(world.root / "new/gilded frame")], 8, overrides=quick("gilded")[1:])
    prepared = prepare_growth(request)
    chances = stream_chances(prepared.checked)
    parts = dict(parts_of(prepared.checked, prepared.growth, Pace(1.0, {}), chances))  # a second a forward pass
    assert parts["preparation"] == STARTING
    assert parts["teacher of gilded"] == pytest.approx(2 * (STEPPING + 1 + 1))  # two steps, forward and back
    assert parts["targets"] == 3 * 3  # the new by its teacher's 3 steps; the old are recalled, and need none
    drawn = 2 * 3 * 4  # two grids of three effects by the student
    assert parts["training"] > drawn + 2 * expected_calls(prepared.checked)  # batches of two, and the passes back
    # 3 pictures: two old effects before, three after, a general one by both, in 4 steps; the new teacher's in 2
    assert parts["evaluation"] == 4 * (3 * (2 + 3) + 2) + 2 * 3
    pace = Pace(1.0, {"encoding pictures and prompts": StageTime(10, 5.0), "measuring x": StageTime(100, 40.0)})
    slower = dict(parts_of(prepared.checked, prepared.growth, pace, chances))
    assert slower["preparation"] == STARTING + 3 * 0.5
    # the collection's run measured 2 x (3 of its own at 2 and at 4 steps, and the student's) and two general pictures: 20
    assert slower["evaluation"] == pytest.approx(parts["evaluation"] + 3 * 0.5 + 40 * (3 * (2 + 3 + 1) + 2) / 20)
    # its three pictures of an effect took 45 seconds in 3 steps: 5 a pass of one item, where a batch's share is 1
    sampled = Pace(
        1.0, {"sampling targets: invert": StageTime(3, 45.0), "sampling targets: general": StageTime(9, 0.0)}
    )
    alone = dict(parts_of(prepared.checked, prepared.growth, sampled, chances))
    assert alone["teacher of gilded"] == pytest.approx(2 * (STEPPING + 5 + 5))
    assert (sampled.has_measured, pace.has_measured) == (False, True)


def test_a_run_that_was_stopped_before_it_was_measured_cannot_tell_how_long_that_takes(
    world: World, quick: Quick
) -> None:
    told, log = "what measuring takes, which the log of the collection's run does not tell", world.root / "run/run.log"
    request = "add", world.collection, world.root / "new/gilded frame", "--plan", *quick("gilded")
    log.write_text("\n".join(line for line in log.read_text().splitlines() if "✓ measuring" not in line))
    assert told in " ".join(invoke(*request).split())
    log.write_text(f"{log.read_text()}\n2026-12-01 01:00:51  ✓ measuring retention  100   0.2 s\n")
    assert told not in " ".join(invoke(*request).split())


def test_from_a_teachers_file_with_the_collection_alone(world: World) -> None:
    alone = world.root / "alone"
    shutil.copytree(world.collection, alone)
    teacher = shutil.copy(world.root / "teachers/soften.safetensors", world.root / "new/Old Film.safetensors")
    pictures = world.root / "data/held-out"
    moved = shutil.copytree(pictures, world.root / "pictures")
    shutil.rmtree(world.root / "run")
    shutil.rmtree(world.root / "data")
    text = invoke(
        "add",
        alone,
        teacher,
        "--prompt",
        "an old film",
        "--pictures",
        moved,
        "--steps",
        "2",
        "-o",
        world.root / "grown",
    )
    assert "begin anew (without a checkpoint of its run)" in text
    assert "general.images (general) is not here, so the general stream is left out" in text
    assert [(e["name"], e["teacher_prompt"]) for e in world.effects("grown")][2] == ("Old-Film", "an old film")
    grown = yaml.safe_load((world.root / "grown/manifest.resolved.yaml").read_text())
    assert grown["effects"][2]["targets"] == "teacher"  # it has pictures to be shown on, and no after-pictures
    assert world.effects("grown")[:2] == json.loads((alone / "effects.json").read_text())["effects"]


def test_what_grew_can_grow_again(world: World, quick: Quick) -> None:
    world.add(world.root / "new/gilded frame", "--steps", "2", *quick("gilded"))
    pairs = shutil.copytree(world.root / "data/soften", world.root / "new/third")
    first = world.effects("run-plus-1")
    invoke(
        "add", world.root / "run-plus-1/collection", pairs, "--name", "third", "--prompt", "once more", "--steps", "2",
        *quick("third"),
    )  # fmt: skip
    assert world.effects("run-plus-2")[:3] == first
    collection = read_folder(world.root / "run-plus-2/collection")
    assert collection.manifest["name"] == "two-plus-2"
    assert {e["name"]: e["teacher"]["use"] for e in collection.manifest["effects"]} == {
        "invert": "collection", "soften": "collection", "gilded": "collection", "third": "from-pairs",
    }  # fmt: skip


def test_old_effects_are_rehearsed_on_a_few_pictures(world: World, quick: Quick) -> None:
    text = world.add(world.root / "new/gilded frame", "--steps", "2", "--rehearse", "2", *quick("gilded"))
    assert re.search(r"invert .* 2 pairs", text)
    assert re.search(r"gilded .* 3 pairs", text)  # what is new is learned from all
    targets = int(re.search(r"([\d,]+) single ones for targets", text)[1].replace(",", ""))  # type: ignore[index]
    assert targets == 3 * 3  # 3 new x 3 steps; the old are recalled, and the collection's run left the general ones
    grown = yaml.safe_load((world.root / "run-plus-1/manifest.resolved.yaml").read_text())
    assert [effect.get("take") for effect in grown["effects"]] == [2, 2, None]


def test_new_effects_learn_from_what_the_collections_own_learned_from(world: World, quick: Quick) -> None:
    """Old effects stay as the collection has them; new ones have its kind of target, if they have the pictures for it."""
    pair = ("--set", "targets.from=pair")
    text = world.add(world.root / "new/gilded frame", "--steps", "2", "--rehearse", "2", *pair, *quick("gilded"))
    assert " 0 single ones for targets" in text  # nothing of the new one is sampled, and the old are recalled
    grown = yaml.safe_load((world.root / "run-plus-1/manifest.resolved.yaml").read_text())
    assert grown["targets"]["from"] == "pair"
    assert [effect.get("targets") for effect in grown["effects"]] == ["teacher", "teacher", None]


def test_rehearsal_can_be_left_out_by_its_share(world: World, quick: Quick) -> None:
    world.add(world.root / "new/gilded frame", "--plan", "--set", "router.options.rehearsal=0", *quick("gilded"))


def test_a_renamed_effect_finds_its_pictures_and_keeps_its_prompt(world: World, quick: Quick) -> None:
    before = world.effects()
    rename_effect(world.collection, "soften", "blur")
    text = world.add(world.root / "new/gilded frame", "--plan", *quick("gilded"))
    assert re.search(r"old +blur +\w+ soften it +the collection, 4 steps +3 pairs", text)
    assert "shown on the pictures of" not in text and "go on from" in text
    assert world.effects()[1] == {**before[1], "name": "blur"}


def test_optimiser_and_average_go_on(world: World, quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    run_step = step_module.run_step

    def look(run: Any, optimizers: Any, step: int) -> Any:
        for name in ("student", "critic") if step == 0 else ():
            seen[name] = run.slots.state(name)
            seen[f"optimizer-{name}"] = {key: value.clone() for key, value in optimizers[name].state().items()}
        if step == 0:
            seen["ema-student"] = {key: value.clone() for key, value in optimizers["student"].average.items()}
        return run_step(run, optimizers, step)

    monkeypatch.setattr(train_module, "run_step", look)
    world.add(world.root / "new/gilded frame", "--steps", "1", *quick("gilded"))
    checkpoint = world.root / "run/checkpoints/step-000005"
    # The collection is the student's average: growing begins where it is, not at the weights that the average lags behind.
    for group, file in (("student", "ema-student"), ("ema-student", "ema-student"), ("critic", "critic")):
        assert _same(seen[group], load_file(checkpoint / f"{file}.safetensors")), group
    assert _same(seen["optimizer-student"], load_file(checkpoint / "optimizer-student.safetensors"))
    assert seen["optimizer-critic"]["blocks.0.to_q.lora_A.weight.exp_avg"].abs().sum() > 0


def test_anew_starts_from_the_collections_own_weights(
    world: World, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    run_step = step_module.run_step

    def look(run: Any, optimizers: Any, step: int) -> Any:
        if step == 0:
            seen.update(run.slots.state("student"), moments=optimizers["student"].state().keys())
        return run_step(run, optimizers, step)

    monkeypatch.setattr(train_module, "run_step", look)
    text = world.add(world.root / "new/gilded frame", "--steps", "1", "--anew", *quick("gilded"))
    assert "begin anew" in text
    assert seen.pop("moments") == {"updates"}
    exported = load_file(world.root / "run" / WEIGHTS)
    products = [
        tuple(weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"] for weights, name in pair)
        for pair in (((seen, "blocks.0.to_q"), (exported, "transformer.blocks.0.to_q")),)
    ]
    assert all(torch.allclose(own, file, atol=1e-6) for own, file in products)


def test_a_stopped_growth_goes_on_and_ends_as_the_unbroken_one(
    world: World, quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (world.root / "new/gilded frame", "--steps", "6", *quick("gilded"))
    world.add(*arguments, "-o", world.root / "unbroken")
    run_step = step_module.run_step

    def interrupt(run: Any, optimizers: Any, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return run_step(run, optimizers, step)

    monkeypatch.setattr(train_module, "run_step", interrupt)
    text = world.add(*arguments, "-o", world.root / "broken", code=3)
    assert "Stopped after step 3 of 6; everything is saved. Go on with:" in text
    assert not (world.root / "broken/collection").exists()
    monkeypatch.setattr(train_module, "run_step", run_step)
    world.add(*arguments, "-o", world.root / "broken")
    assert (world.root / "broken" / WEIGHTS).read_bytes() == (world.root / "unbroken" / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_what_two_runs_made_is_grown_as_the_first_of_them_began(world: World, quick: Quick, tmp_path: Path) -> None:
    second = yaml.safe_load((world.root / "manifest.yaml").read_text())
    second |= {"name": "second", "router": {"use": "pdsr"}, "losses": [{"use": "bs-dmd"}, {"use": "fake-score"}]}
    second["slots"] = {
        "student": {"rank": 2, "lr": 1e-4, "init": str(world.collection)},
        "critic": {"rank": 2, "lr": 1e-4},
    }
    second["train"]["generator_steps"] = 1
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(second | {"evaluate": None, "samples": None, "targets": None}))
    invoke("run", tmp_path / "second.yaml", "--output", tmp_path / "second")
    add = ("add", tmp_path / "second/collection", world.root / "new/gilded frame", "--no-measure", *quick("gilded"))
    text = invoke(*add, "--steps", "3", "--mixed", "2")
    assert "3 generator steps (a first phase of 2, then 1 of the full objective), batch 2, learning rate 0.006" in text
    streams = [line["updates"][0]["stream"] for line in read_metrics(tmp_path / "second-plus-1/metrics.jsonl")]
    assert set(streams[:2]) <= {"mixed", "rehearsal"} and streams[2] in {"effect", "rehearsal", "general"}

    shutil.move(world.root / "run", tmp_path / "elsewhere")
    alone = invoke(*add, "--plan", "--fresh")
    assert "which this collection's run went on from, is not here" in " ".join(alone.split())
    assert "first phase of" not in alone
    assert "--mixed 2: this collection did not begin" in invoke(*add, "--plan", "--fresh", "--mixed", "2", code=1)
    named = invoke(*add, "--plan", "--fresh", "--begun-by", tmp_path / "elsewhere/collection")
    assert "a first phase of 60, then 40" in named
    for wrong, told in ((tmp_path / "second/collection", "was not on mixed batches"), (tmp_path / "gone", "gone")):
        assert told in invoke(*add, "--plan", "--fresh", "--begun-by", wrong, code=1)
    superfluous = invoke("add", tmp_path / "elsewhere/collection", world.root / "new/gilded frame", "--plan",
                         "--begun-by", tmp_path / "elsewhere/collection", *quick("gilded"), code=1)  # fmt: skip
    assert "leave it out" in superfluous


def test_a_plan_writes_nothing(world: World, quick: Quick, tmp_path: Path) -> None:
    before = contents(tmp_path)
    text = world.add(world.root / "new/gilded frame", "--plan", *quick("gilded"))
    assert "a first phase of 60, then 40 of the full objective" in text and "Output: " in text
    assert "critic: begins after the first phase, as a copy of the student" in text
    assert "9 single ones for targets, less what is cached" in text
    assert contents(tmp_path) == before


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)
