"""The manifest of a growing run: which losses count on which of its streams, and how long the average remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from cldistill.errors import CollectionError
from cldistill.manifest.load import load_manifest
from cldistill.testing import write_pairs
from cldistill.training.checkpoint import Checkpoint
from cldistill_plugins.incremental.beginning import Beginning, find_beginning
from cldistill_plugins.incremental.effects import Given, NewEffect, read_effect
from cldistill_plugins.incremental.folder import CollectionFolder, sound_manifest
from cldistill_plugins.incremental.growing_manifest import (
    Growth,
    _slot,
    _teacher,
    losses,
    mixed_steps,
    rates,
    rehearsed_pictures,
    router_options,
)
from cldistill_plugins.incremental.prepare import refuse_first_phase


def growth(recipe: str, steps: int = 100, **changes: Any) -> Growth:
    known = load_manifest(recipe).manifest.model_dump(mode="json", by_alias=True) | changes
    return Growth(cast("CollectionFolder", None), known, (), {}, {}, None, steps)


@pytest.mark.parametrize("recipe", ["quickstart", "one-effect", "collectionlora-50"])
@pytest.mark.parametrize("mixed", [0, 60])
def test_no_loss_of_the_collections_run_counts_on_the_rehearsal_stream(recipe: str, mixed: int) -> None:
    found = {loss["use"]: set(loss["streams"]) for loss in losses(growth(recipe), mixed)}
    assert {"bs-dmd", "ts-dmd", "ta-fm", "fake-score"} <= found.keys()
    assert all("rehearsal" not in streams for streams in found.values())
    assert found["bs-dmd"] >= {"effect", "general"} and "effect" in found["fake-score"]
    assert all(("mixed" in streams) <= bool(mixed) for streams in found.values())


def test_without_a_general_pool_no_loss_waits_for_it() -> None:
    found = losses(growth("collectionlora-50", general=None), 0)
    assert all(loss["streams"] == ["effect"] for loss in found)


def test_the_prompt_of_new_pairs_is_asked_for_where_nothing_says_it(tmp_path: Path) -> None:
    pairs, asked = write_pairs(tmp_path / "gilded", 1), []
    effect = read_effect(Given(pairs), lambda name: asked.append(name) or " gild it ")  # type: ignore[func-returns-value]
    assert (effect.name, effect.prompt, asked) == ("gilded", "gild it", ["gilded"])
    with pytest.raises(CollectionError, match="nothing says which prompt"):
        read_effect(Given(pairs), lambda name: "  ")


def test_a_new_teacher_is_trained_as_those_of_the_collection_that_taught_this_one() -> None:
    def manifest(use: str, **options: Any) -> dict[str, Any]:
        return {"effects": [{"name": "ink", "teacher": {"use": use, "options": options}}]}

    new, first = NewEffect("gold", "gild it", None, Path("gold")), manifest("from-pairs", steps=400)
    grown = replace(growth("quickstart", effects=manifest("collection", path="first")["effects"]), taught_by=first)
    assert _teacher(grown, new) == {"use": "from-pairs", "options": {"steps": 400}}
    own = replace(grown, known=manifest("from-pairs", steps=7))
    assert _teacher(own, new) == {"use": "from-pairs", "options": {"steps": 7}}


@pytest.mark.parametrize(("ema", "steps", "kept"), [(0.999, 90, 0.9), (0.98, 1000, 0.98), (None, 100, None)])
def test_the_average_forgets_within_the_run(ema: float | None, steps: int, kept: float | None) -> None:
    slot = {"rank": 4, "lr": 1e-4, "from_step": 0, "ema": ema}
    grown = growth("quickstart", steps)
    path = cast("CollectionFolder", SimpleNamespace(path=Path("collection")))
    grown = Growth(path, grown.known, (), {}, {}, None, steps)
    assert _slot(grown, "student", slot, 0)["ema"] == kept


def test_the_first_phase_begins_with_a_share_of_the_collections_first_rate() -> None:
    known = [{"from_step": 0, "lr": 5e-3, "end_lr": 2e-4, "warmup": 20}, {"from_step": 1500, "lr": 2e-4}]
    first, then = cast("list[dict[str, Any]]", rates(known, 60, 3e-3))
    assert (first["lr"], first["end_lr"], first["warmup"]) == (3e-3, 2e-4, 5)
    assert then == {"from_step": 60, "lr": 2e-4}
    assert rates(known, 0, 3e-3) == 2e-4
    assert rates(1e-4, 60, None) == 1e-4


def first_rates(known: Growth) -> list[float]:
    """Return the first rate of a growing run, and of one that grows what that one made, and so on."""
    path, found = cast("CollectionFolder", SimpleNamespace(path=Path("collection"))), []
    for _ in range(3):
        known = replace(known, collection=path)
        mixed = mixed_steps(known)
        slots = {name: _slot(known, name, slot, mixed) for name, slot in known.known["slots"].items()}
        found.append(slots["student"]["lr"][0]["lr"])
        router = {"use": "incremental", "options": router_options(known, mixed)}
        grown = {**known.known, "slots": slots, "losses": losses(known, mixed), "router": router}
        known = replace(known, known=grown, begun_by=None)
    return found


def test_what_is_added_to_a_grown_collection_begins_no_lower() -> None:
    assert first_rates(growth("quickstart")) == pytest.approx([3e-3] * 3)
    assert first_rates(went_on()) == pytest.approx([3e-3] * 3)


def went_on() -> Growth:
    """A collection trained in two runs: the first on mixed batches alone, as EffectBench's."""
    one = load_manifest("quickstart").manifest.model_dump(mode="json", by_alias=True)
    first = one | {"losses": [{**one["losses"][0], "streams": ["mixed"]}]}
    second = [{**loss, "from_step": 0, "streams": loss["streams"] and loss["streams"][-1:]} for loss in one["losses"]]
    slots = {name: {**slot, "from_step": 0} for name, slot in one["slots"].items()}
    slots["student"] |= {"init": "first/collection", "lr": [{"from_step": 0, "lr": 4e-4, "end_lr": 1e-4, "warmup": 5}]}
    slots["critic"] |= {"lr": 8e-4}
    return replace(growth("quickstart", losses=second, slots=slots), begun_by=first)


def test_what_two_runs_made_grows_by_a_first_phase_as_the_first_run_had_it() -> None:
    grown = went_on()
    mixed = mixed_steps(grown)
    found = {loss["use"]: loss for loss in losses(grown, mixed)}
    assert mixed == 60 and len(found) == len(losses(grown, mixed))
    assert found["ta-fm"]["streams"] == ["mixed", "effect"] and found["ta-fm"]["from_step"] == 0
    others = [found[name] for name in ("bs-dmd", "ts-dmd", "fake-score")]
    assert all("mixed" not in loss["streams"] and loss["from_step"] == 60 for loss in others)
    path = cast("CollectionFolder", SimpleNamespace(path=Path("collection")))
    slots = {
        name: _slot(replace(grown, collection=path), name, slot, mixed) for name, slot in grown.known["slots"].items()
    }
    assert slots["student"]["from_step"] == 0 and slots["student"]["lr"][0]["lr"] == pytest.approx(3e-3)
    assert slots["critic"]["from_step"] == 60 and slots["critic"]["lr"] == grown.known["slots"]["critic"]["lr"]


def test_a_critic_that_begins_after_the_first_phase_begins_as_the_student_is_then() -> None:
    """Its last weights are those of a critic of another student: the first losses were 16 times those after a few updates."""
    path, checkpoint = Path("checkpoint"), ("student", "optimizer-student", "critic", "optimizer-critic")
    folder = cast("CollectionFolder", SimpleNamespace(path=Path("collection")))
    there = cast("Checkpoint", SimpleNamespace(path=path, groups=dict.fromkeys(checkpoint)))
    grown = replace(went_on(), collection=folder, checkpoint=there)
    begun = {mixed: {n: _slot(grown, n, s, mixed) for n, s in grown.known["slots"].items()} for mixed in (0, 60)}
    assert [begun[m]["student"]["checkpoint"] for m in begun] == [str(path)] * 2
    assert [(begun[m]["critic"]["init"], begun[m]["critic"]["checkpoint"]) for m in begun] == [
        (None, str(path)),
        ("slot:student", None),
    ]


def test_a_loss_of_the_first_run_alone_counts_in_the_first_phase_alone() -> None:
    grown = went_on()
    without = [loss for loss in grown.known["losses"] if loss["use"] != "ta-fm"]
    found = losses(replace(grown, known=grown.known | {"losses": without}), 60)
    assert [(x["use"], x["streams"], x["until_step"]) for x in found if "mixed" in x["streams"]] == [
        ("ta-fm", ["mixed"], 60)
    ]


def test_how_long_the_first_phase_is_can_be_said() -> None:
    assert mixed_steps(replace(went_on(), mixed=25)) == 25
    assert mixed_steps(replace(growth("quickstart"), mixed=500)) == 99
    assert mixed_steps(replace(went_on(), begun_by=None, mixed=25)) == 0


@pytest.mark.parametrize(("effects", "expected"), [(6, 20), (50, 8), (1000, 5)])
def test_as_many_pictures_are_rehearsed_as_the_run_draws(effects: int, expected: int) -> None:
    folder = SimpleNamespace(index=SimpleNamespace(effects=[None] * effects))
    known = {"train": {"batch_size": 8}}
    assert rehearsed_pictures(Growth(cast("CollectionFolder", folder), known, (), {}, {}, None, 100)) == expected


def test_the_run_that_began_on_mixed_batches_is_found_over_the_runs_between(tmp_path: Path) -> None:
    grown = went_on()
    assert grown.begun_by is not None
    runs = {"first": grown.begun_by, "second": grown.known, "third": grown.known}
    for (name, manifest), before in zip(
        runs.items(), (None, "first/collection", "second/checkpoints/step-4"), strict=True
    ):
        key = "init" if str(before).endswith("collection") else "checkpoint"
        student = {**manifest["slots"]["student"], "init": None, "checkpoint": None}
        student |= {key: before and str(tmp_path / before)}
        slots = {**manifest["slots"], "student": student}
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.resolved.yaml").write_text(
            yaml.safe_dump({**manifest, "slots": slots, "name": name})
        )
    third = sound_manifest(tmp_path / "third")
    found = find_beginning(third)
    assert found.manifest is not None and found.manifest["name"] == "first"
    (tmp_path / "first" / "manifest.resolved.yaml").unlink()
    assert find_beginning(third) == Beginning(lost=str(tmp_path / "first/collection"))
    assert find_beginning(grown.begun_by) == Beginning()


@pytest.mark.parametrize(
    "init", ["OWNER/NAME@0123456789012345678901234567890123456789", "collection", "mine/lora.safetensors"]
)
def test_what_a_student_began_as_is_looked_for_nowhere_but_where_it_says(
    init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, known = went_on().begun_by, went_on().known
    (tmp_path / "manifest.resolved.yaml").write_text(yaml.safe_dump(first))  # a stranger's, in the working folder
    monkeypatch.chdir(tmp_path)
    slots = {**known["slots"], "student": {**known["slots"]["student"], "init": init, "checkpoint": None}}
    assert find_beginning(known | {"slots": slots}) == Beginning(lost=init)


def test_a_student_that_began_as_an_ordinary_lora_lost_nothing(tmp_path: Path) -> None:
    known, file = went_on().known, tmp_path / "lora.safetensors"
    file.write_bytes(b"")
    slots = {**known["slots"], "student": {**known["slots"]["student"], "init": str(file), "checkpoint": None}}
    assert find_beginning(known | {"slots": slots}) == Beginning()
    (tmp_path / "manifest.resolved.yaml").write_text(yaml.safe_dump(went_on().begun_by))
    assert find_beginning(known | {"slots": slots}).manifest is not None


def test_losses_that_differ_between_the_runs_count_each_in_its_phase() -> None:
    grown = went_on()
    known = [{**loss, "weight": 7.0} if loss["use"] == "ta-fm" else loss for loss in grown.known["losses"]]
    known.append({**known[0], "use": "warmer", "streams": ["effect"], "until_step": 5})
    found = losses(replace(grown, known=grown.known | {"losses": known}), 60)
    own = [
        (loss["streams"], loss["weight"], loss["from_step"], loss["until_step"])
        for loss in found
        if loss["use"] == "ta-fm"
    ]
    assert own == [(["mixed"], 3.0, 0, 60), (["effect"], 7.0, 60, None)]
    assert "warmer" not in {loss["use"] for loss in found}  # it was over before the second run ended


def test_the_first_rate_may_be_a_number() -> None:
    grown = went_on()
    assert grown.begun_by is not None
    slots = {**grown.begun_by["slots"], "student": {**grown.begun_by["slots"]["student"], "lr": 1e-3}}
    assert first_rates(replace(grown, begun_by=grown.begun_by | {"slots": slots})) == pytest.approx([6e-4] * 3)


def test_a_first_phase_that_cannot_be_is_refused() -> None:
    with pytest.raises(CollectionError, match="--mixed 100: the first phase is a part of --steps 100"):
        refuse_first_phase(replace(went_on(), mixed=100))
    with pytest.raises(CollectionError, match="--mixed 25: this collection did not begin on mixed batches"):
        refuse_first_phase(replace(went_on(), begun_by=None, mixed=25))
    refuse_first_phase(replace(went_on(), mixed=99))
    refuse_first_phase(replace(went_on(), begun_by=None, mixed=0))
