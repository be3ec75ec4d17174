"""The table: what a stream of queries loads and gets right, and the whole benchmark on a tiny collection."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from cldistill import testing
from cldistill.catalogue import Catalogue
from cldistill.errors import AdapterFormatError, DataError, NotMeasured
from cldistill.testing import TinyBase
from cldistill_plugins.deployment import __main__ as command
from cldistill_plugins.deployment import benchmark
from cldistill_plugins.deployment.benchmark import BenchmarkPlan, grouped_files, run_benchmark
from cldistill_plugins.deployment.loads import Mounts, effect_files
from cldistill_plugins.deployment.queries import BankEffect, Query
from cldistill_plugins.deployment.split import Group, Groups
from cldistill_plugins.deployment.table import Layout, Routed, press_buttons, serve

torch.set_num_threads(1)
QUERIES = [Query("", name) for name in ("a", "a", "b", "c", "a")]


@pytest.fixture
def mounts(tmp_path: Path) -> tuple[Mounts, dict[str, Path]]:
    """A place for adapters, and a file for each of three effects."""
    base = TinyBase()
    files, stand_ins = effect_files(base, ["a", "b", "c"], None, tmp_path, rank=2)
    assert stand_ins == 3
    return Mounts(base), dict(files)


def test_a_file_of_the_familys_own_trainers_is_mounted_under_its_names(tmp_path: Path) -> None:
    base = TinyBase()
    first, second = base.adapter_targets[:2]
    (wide, width), rank = base.backbone.get_submodule(first).weight.shape, 2
    weights = {"joint.lora_A.weight": torch.ones(rank, width), "joint.lora_B.weight": torch.ones(2 * wide, rank)}
    save_file(weights, tmp_path / "theirs.safetensors")
    with pytest.raises(AdapterFormatError, match="joint"):
        Mounts(base).need(tmp_path / "theirs.safetensors")
    base = TinyBase()
    assert Mounts(base, {"joint": (first, second)}).need(tmp_path / "theirs.safetensors") is not None


def layout(name: str, files: dict[str, Path]) -> Layout:
    return Layout(name, files, {path: path.stat().st_size for path in files.values()})


def test_a_file_is_loaded_only_where_another_is_mounted(mounts: tuple[Mounts, dict[str, Path]]) -> None:
    place, files = mounts
    row = serve(layout("one-per-effect", files), press_buttons(QUERIES), QUERIES, place)
    assert (row["files"], row["loads"], row["storage_bytes"]) == (3, 4, sum(p.stat().st_size for p in files.values()))
    assert row["load_seconds"]["mean"] > 0 and row["load_seconds"]["n"] == 4
    assert row["effect_accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 5}
    one = serve(layout("one-collection", dict.fromkeys("abc", files["a"])), press_buttons(QUERIES), QUERIES, place)
    assert (one["files"], one["loads"], one["storage_bytes"]) == (1, 1, files["a"].stat().st_size)
    assert one["load_seconds"]["low"] is one["load_seconds"]["high"] is None  # of a single load there is no interval
    assert one["wait_seconds"]["mean"] == pytest.approx(one["load_seconds"]["mean"] / 5)


def test_a_wrong_effect_in_the_right_group_has_the_right_file(mounts: tuple[Mounts, dict[str, Path]]) -> None:
    place, files = mounts
    routed = Routed("text-encoder", ["b", "a", "c", None, "a"], [0.1] * 5, refused=1)
    grouped = layout("groups", {"a": files["a"], "b": files["a"], "c": files["c"]})
    row = serve(grouped, routed, QUERIES, place)
    assert row["effect_accuracy"]["mean"] == pytest.approx(2 / 5)
    assert row["file_accuracy"]["mean"] == pytest.approx(3 / 5)
    told = [replace(query, described=query.effect == "a") for query in QUERIES]
    told_apart = serve(grouped, routed, told, place)["effect_accuracy_described"]
    assert told_apart["mean"] == pytest.approx(2 / 3) and told_apart["n"] == 3
    assert (row["loads"], row["unanswered"]) == (3, 1)
    assert row["routing_seconds"]["mean"] == pytest.approx(0.1)


def test_an_effects_own_file_is_used_where_there_is_one(tmp_path: Path) -> None:
    base = TinyBase()
    own, _ = effect_files(base, ["a"], None, tmp_path, rank=3)
    (tmp_path / "scratch").mkdir()
    files, stand_ins = effect_files(base, ["a", "b"], tmp_path, tmp_path / "scratch", rank=2)
    assert files["a"] == own["a"] and stand_ins == 1 and files["b"].parent.name == "scratch"


def test_groups_come_from_their_split_or_in_blocks(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    blocks = grouped_files(list("abcde"), (), weights, 2, tmp_path)
    assert [sum(path == other for other in blocks.values()) for path in dict.fromkeys(blocks.values())] == [2, 2, 1]
    assert all(path.read_bytes() == b"weights" for path in blocks.values())
    split = Groups("x", (Group("x-1", ("a", "d"), "", "g1"), Group("x-2", ("b", "c", "e"), "", "g2")), folder=tmp_path)
    trained = tmp_path / "g1/collection/pytorch_lora_weights.safetensors"
    trained.parent.mkdir(parents=True)
    trained.write_bytes(b"trained")
    found = grouped_files(list("abcde"), [split], weights, 2, tmp_path)
    assert found["a"] == found["d"] == trained and found["b"] == found["c"] == found["e"] != trained
    assert found["b"].read_bytes() == b"weights"


class ByFirstWord:
    """Routes by the first effect whose name occurs in the query."""

    name = "text-encoder"

    def __init__(self, effects: list[BankEffect]) -> None:
        self._names = [effect.name for effect in effects]

    def route(self, query: str) -> str:
        return next((name for name in self._names if name in query), self._names[0])


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of the kit's tiny base, which no test changes."""
    done = testing.run_manifest(tmp_path_factory.mktemp("deployment") / "run", testing.catalogue_with(), steps=1)
    assert done.collection is not None
    return done.collection


@pytest.fixture
def made(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That collection, a bank of four, and a router that needs no encoder."""
    catalogue: Catalogue = testing.catalogue_with()
    for module in ("cldistill.collection.collection", "cldistill_plugins.deployment.loads"):
        monkeypatch.setattr(f"{module}.load_catalogue", lambda: catalogue)
    monkeypatch.setattr(benchmark, "TextRouter", ByFirstWord)
    bank = [{"name": name, "prompt": "apply it"} for name in ("zig", "zag", "zog", "zug")]
    (tmp_path / "bank.yaml").write_text(yaml.safe_dump({"effects": bank}))
    return made_once


def plan(made: Path, **changes: object) -> BenchmarkPlan:
    bank = [BankEffect(name=name, prompt="apply it") for name in ("zig", "zag", "zog", "zug")]
    return replace(BenchmarkPlan(bank, made, [2, 4], queries=12, at_most=3, rank=2), **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_size_has_its_layouts_and_routers(made: Path) -> None:
    found = run_benchmark(plan(made))
    keys = [(row["effects"], row["layout"], row["router"]) for row in found.rows]
    both = [(2, x, r) for r in (None, "text-encoder") for x in ("one-per-effect", "one-collection")]
    assert keys == both + [
        (4, x, r) for r in (None, "text-encoder") for x in ("one-per-effect", "one-collection", "groups")
    ]
    assert [row["files"] for row in found.rows if row["layout"] == "groups"] == [2, 2]
    assert all(row["effect_accuracy"]["mean"] == 1.0 for row in found.rows) and found.mistakes == []
    assert found.not_measured == [{"what": "vlm", "reason": "no endpoint was named (--endpoint and --model)"}]


def test_mistakes_are_kept(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByFirstWord, "route", lambda self, query: "zig")
    found = run_benchmark(plan(made, sizes=[2]))
    (told,) = found.mistakes
    assert told["count"] > 0 and all(row["meant"] == "zag" and row["picked"] == "zig" for row in told["first"])


@pytest.mark.slow
def test_without_an_encoder_the_rest_is_measured(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(effects: object) -> None:
        raise NotMeasured("it is not installed")

    monkeypatch.setattr(benchmark, "TextRouter", absent)
    absent.name = "text-encoder"  # type: ignore[attr-defined]
    found = run_benchmark(plan(made))
    assert {row["router"] for row in found.rows} == {None}
    assert found.not_measured[0] == {"what": "text-encoder", "reason": "it is not installed"}


def test_a_size_beyond_the_bank_is_refused(made: Path) -> None:
    with pytest.raises(DataError, match="the bank has 4 effects"):
        run_benchmark(plan(made, sizes=[5]))


def test_the_command_writes_what_it_prints(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--collection", str(made), "--bank", str(tmp_path / "bank.yaml"), "--sizes", "2,4", "--queries", "6"]
    monkeypatch.setattr(sys, "argv", ["deployment", *words, "--output", str(tmp_path / "d.json")])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert not left.value.code
    told = json.loads((tmp_path / "d.json").read_text())
    assert told["queries"]["count"] == 6 and told["adapters"] == {"own": 0, "stand_ins": 4, "rank_of_stand_ins": 16}
    assert len(told["rows"]) == 8 and "not measured: vlm" in capsys.readouterr().out


def test_a_user_error_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["deployment", "--collection", "/nowhere", "--bank", "/no/bank.yaml"])
    with pytest.raises(SystemExit) as left:
        command.main()
    assert left.value.code == 2 and capsys.readouterr().err.startswith("deployment: /no/bank.yaml: is no catalogue")
