"""The manifest of a growing run: which losses count on which of its streams, and how long the average remembers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cldistill.errors import CollectionError
from cldistill.manifest.load import load_manifest
from cldistill.testing import write_pairs
from cldistill_plugins.incremental.effects import Given, NewEffect, read_effect
from cldistill_plugins.incremental.folder import CollectionFolder
from cldistill_plugins.incremental.growing_manifest import Growth, _slot, _teacher, losses, rates, rehearsed_pictures


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
    first, then = cast("list[dict[str, Any]]", rates(known, 60))
    assert (first["lr"], first["end_lr"], first["warmup"]) == (pytest.approx(3e-3), 2e-4, 5)
    assert then == {"from_step": 60, "lr": 2e-4}
    assert rates(known, 0) == 2e-4
    assert rates(1e-4, 60) == 1e-4


@pytest.mark.parametrize(("effects", "expected"), [(6, 20), (50, 8), (1000, 5)])
def test_as_many_pictures_are_rehearsed_as_the_run_draws(effects: int, expected: int) -> None:
    folder = SimpleNamespace(index=SimpleNamespace(effects=[None] * effects))
    known = {"train": {"batch_size": 8}}
    assert rehearsed_pictures(Growth(cast("CollectionFolder", folder), known, (), {}, {}, None, 100)) == expected
