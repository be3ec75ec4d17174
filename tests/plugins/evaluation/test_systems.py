"""What a system of ``evaluate.systems`` mounts, how it samples, and what it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cldistill.catalogue import load_catalogue
from cldistill.errors import CollectionError, ManifestError
from cldistill.manifest.models import EvaluatedSystem
from cldistill.testing.adapters import random_adapter
from cldistill.testing.tiny_base import TinyBase
from cldistill.weights import AdapterState, LoraWeights
from cldistill_plugins.evaluation.check import teachers_asked_for

BASE = TinyBase()
KNOWN = {"invert": ("zork", "zork swap every colour"), "soften": ("blib", "blib make it soft")}


def summed(one: AdapterState, two: AdapterState) -> AdapterState:
    """One LoRA whose delta is the sum of two: their ranks side by side."""
    modules: dict[str, Any] = {}
    for name, first in one.modules.items():
        second = two.modules[name]
        assert isinstance(first, LoraWeights)
        assert isinstance(second, LoraWeights)
        rank = first.rank + second.rank
        up = torch.cat([first.scale * first.up, second.scale * second.up], dim=1)
        modules[name] = LoraWeights(torch.cat([first.down, second.down]), up, float(rank))
    return AdapterState(modules, "sum", "sum")


def same(a: Any, b: Any) -> bool:
    """Whether two pictures are equal up to rounding."""
    return bool(np.abs(a - b).max() <= 1)


def test_a_teacher_is_trained_only_for_a_system_that_is_measured_on_its_effect() -> None:
    def asked(*systems: dict[str, Any]) -> set[str]:
        told = [EvaluatedSystem.model_validate({"title": s["name"], **s}) for s in systems]
        return teachers_asked_for(told, ["invert", "soften", "gild"])

    few = {"name": "few", "adapter": "teacher", "effects": ["soften"]}
    assert asked({"name": "bare", "adapter": None}, few) == {"soften"}
    assert asked(few, {"name": "one", "adapter": "teacher", "effects": ["gild"]}) == {"soften", "gild"}
    assert asked(few, {"name": "all", "adapter": "teacher"}) == {"invert", "soften", "gild"}


@pytest.mark.slow
def test_an_adapter_with_another_equals_the_sum_of_their_deltas(desk: Any) -> None:
    one, two = desk.lora("one"), desk.lora("two", rank=3)
    desk.save(desk.root / "sum.safetensors", summed(one, two))
    files = {name: str(desk.root / f"{name}.safetensors") for name in ("one", "two", "sum")}
    desk.evaluate(
        {"name": "both", "adapter": files["one"], "with": files["two"], "steps": 2},
        {"name": "sum", "adapter": files["sum"], "steps": 2},
        {"name": "alone", "adapter": files["one"], "steps": 2},
        {"name": "only-beside", "adapter": None, "with": files["one"], "steps": 2},
    )
    for pool, key in (("invert", "000"), ("soften", "001"), ("general", "000001")):
        assert same(desk.pixels("both", pool, key), desk.pixels("sum", pool, key))
        assert not same(desk.pixels("both", pool, key), desk.pixels("alone", pool, key))
        assert np.array_equal(desk.pixels("only-beside", pool, key), desk.pixels("alone", pool, key))


@pytest.mark.slow
def test_a_teacher_with_an_acceleration_lora(desk: Any) -> None:
    fast = desk.lora("fast")
    path = str(desk.root / "fast.safetensors")
    desk.save(desk.root / "sum.safetensors", summed(random_adapter(BASE, 0, "soften"), fast))
    desk.evaluate(
        {"name": "teacher-fast", "adapter": "teacher", "with": path, "steps": 2},
        {"name": "sum", "adapter": str(desk.root / "sum.safetensors"), "steps": 2},
        {"name": "fast", "adapter": None, "with": path, "steps": 2},
    )
    assert same(desk.pixels("teacher-fast", "soften"), desk.pixels("sum", "soften"))
    assert not same(desk.pixels("teacher-fast", "invert"), desk.pixels("sum", "invert"))
    # The general stream has no teacher: there the acceleration LoRA works alone.
    assert np.array_equal(desk.pixels("teacher-fast", "general", "000001"), desk.pixels("fast", "general", "000001"))


@pytest.mark.slow
def test_samplers_steps_and_evaluations(desk: Any) -> None:
    desk.lora("fast")
    path = str(desk.root / "fast.safetensors")
    folder = str(desk.collection("ours", KNOWN, steps=3))
    desk.evaluate(
        {"name": "bare", "adapter": None},
        {"name": "base", "adapter": "teacher", "steps": 5},
        {"name": "base-fast", "adapter": "teacher", "with": path},
        {"name": "ours", "adapter": folder},
        {"name": "ours-1", "title": "one step", "adapter": folder, "steps": 1},
        {"name": "ours-euler", "adapter": folder, "sampler": "euler"},
        parts={"base": {"use": "tiny-base", "options": {"target_guidance_scale": 2.0}}},
    )
    found = {s["name"]: (s["sampler"], s["steps"], s["evaluations"]) for s in desk.report()["systems"]}
    assert found == {
        "bare": ("euler", 4, 8), "base": ("euler", 5, 10),  # guided: two calls a step
        "base-fast": ("few-step", 4, 4),  # a plain file says nothing of its sampler: the manifest's
        "ours": ("few-step", 3, 3), "ours-1": ("few-step", 1, 1), "ours-euler": ("euler", 4, 8),
    }  # fmt: skip
    assert desk.report()["systems"][4]["title"] == "one step"


@pytest.mark.slow
def test_the_collections_own_prompts_win(desk: Any) -> None:
    folder = str(desk.collection("ours", {**KNOWN, "invert": ("zork", "invert the picture")}, steps=4))
    desk.save(desk.root / "plain.safetensors", random_adapter(BASE, "ours"))
    plain = str(desk.root / "plain.safetensors")
    desk.evaluate(
        {"name": "own", "adapter": folder},
        {
            "name": "as-teacher",
            "adapter": plain,
            "shift": 2.0,
        },  # told what the manifest's teacher is: "invert the picture"
        {"name": "as-student", "adapter": plain, "shift": 2.0, "prompts": "student"},
    )
    assert np.array_equal(desk.pixels("own", "invert"), desk.pixels("as-teacher", "invert"))
    assert not np.array_equal(desk.pixels("own", "soften"), desk.pixels("as-teacher", "soften"))
    assert not np.array_equal(desk.pixels("as-student", "soften"), desk.pixels("as-teacher", "soften"))


@pytest.mark.slow
def test_an_effect_that_a_collection_lacks_is_left_out_and_said(desk: Any) -> None:
    folder = desk.collection("half", {"invert": KNOWN["invert"]})
    desk.evaluate({"name": "half", "adapter": str(folder)}, {"name": "bare", "adapter": None})
    report = desk.report()
    assert "soften" in report["systems"][0]["note"]
    assert set(report["values"]["half"]) == {"invert", "general"}
    assert set(report["per_effect"]["half"]) == {"invert"}
    assert not (desk.root / "out/pictures/half/soften").exists()


@pytest.mark.slow
def test_in_the_general_pool_a_teacher_is_the_bare_base(desk: Any) -> None:
    desk.evaluate({"name": "base", "adapter": "teacher", "steps": 2}, {"name": "bare", "adapter": None, "steps": 2})
    assert not np.array_equal(desk.pixels("base", "invert"), desk.pixels("bare", "invert"))
    assert np.array_equal(desk.pixels("base", "general", "000001"), desk.pixels("bare", "general", "000001"))


def test_what_is_refused_before_anything_is_loaded(desk: Any) -> None:
    bare = {"name": "bare", "adapter": None}
    with pytest.raises(ManifestError, match=r"systems\.1\.adapter: no such file .*--skip-missing"):
        desk.evaluate(bare, {"name": "ours", "adapter": str(desk.root / "nowhere")})
    with pytest.raises(ManifestError, match=r"compare\.0: there is no system 'bore'; did you mean 'bare'"):
        desk.evaluate(bare, compare=[["bare", "bore"]])
    with pytest.raises(ManifestError, match=r"stochastic\.0: there is no effect 'inwert'; did you mean 'invert'"):
        desk.evaluate(bare, stochastic=["inwert"])
    with pytest.raises(ManifestError, match="two systems are called 'bare'"):
        desk.evaluate(bare, bare)
    with pytest.raises(ManifestError, match="no system may be called so"):
        desk.evaluate({"name": "truth", "adapter": None})
    other = TinyBase(TinyBase().settings.model_copy(update={"width": 16}))
    desk.save(desk.root / "other.safetensors", random_adapter(other, "x"))
    with pytest.raises(ManifestError, match=r"systems\.0\.with: .*another shape"):
        desk.evaluate({"name": "a", "adapter": None, "with": str(desk.root / "other.safetensors")})
    assert not (desk.root / "out").exists()


def test_a_collection_of_another_base_is_refused(desk: Any) -> None:
    folder = desk.collection("ours", KNOWN, **{"cldistill.base_fingerprint": "f" * 64})
    with pytest.raises(CollectionError, match="another base"):
        desk.evaluate({"name": "ours", "adapter": str(folder)})


def test_what_is_not_trained_yet_can_be_skipped(desk: Any) -> None:
    desk.evaluate(
        {"name": "bare", "adapter": None}, {"name": "ours", "title": "Ours", "adapter": "run:later"},
        skip_missing=True, not_run=[{"what": "180 effects", "why": "a night", "cost": "9 h"}],
    )  # fmt: skip
    report = desk.report()
    assert [system["name"] for system in report["systems"]] == ["bare"]
    assert report["not_run"] == [
        {"what": "180 effects", "why": "a night", "cost": "9 h"}, {"what": "Ours", "why": "not trained yet: later", "cost": ""}
    ]  # fmt: skip
    with pytest.raises(ManifestError, match="none of them"):
        desk.evaluate({"name": "ours", "adapter": "run:later"}, skip_missing=True)


@pytest.mark.slow
def test_without_systems_those_of_a_run(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.root)
    desk.evaluate()
    assert [s["name"] for s in desk.report()["systems"]] == ["base", "teacher@4"]
    assert "cldistill run" in desk.report()["not_run"][0]["why"]
    desk.collection("runs/tiny/collection", KNOWN)
    desk.evaluate()
    names = {s["name"]: s["sampler"] for s in desk.report()["systems"]}
    assert names == {"base": "euler", "teacher@4": "euler", "student@4": "few-step"}


@pytest.mark.slow
def test_held_out_pairs_are_edited_under_names_of_their_own(desk: Any) -> None:
    desk.components.append(load_catalogue().get("metric", "likeness").component)
    desk.evaluate({"name": "bare", "adapter": None, "steps": 1}, pairs=1, metrics=["likeness"])
    assert sorted(path.name for path in (desk.root / "out/pictures/source").iterdir() if "-" in path.name) == [
        "invert-000.webp", "soften-000.webp",
    ]  # fmt: skip
    found = desk.report()["summary"]["bare"]["left_to_truth"]
    assert found["mean"] > 0 and (found["low"], found["n"]) == (None, 1)  # one picture an effect: no interval
