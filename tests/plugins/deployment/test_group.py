"""`cldistill group`: how many groups, the manifests it writes, what deployment routes by, and what it refuses."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import Field
from rich.console import Console
from typer.testing import CliRunner

from cldistill import testing
from cldistill.catalogue import Catalogue
from cldistill.cli import main as cli
from cldistill.component import Needs, Settings, stream_router
from cldistill.errors import CollectionError, ManifestError, OptionsError, UnsafePathError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import CheckedManifest
from cldistill.progress.signals import never
from cldistill.progress.stages import SilentStages
from cldistill.runner import Outcome
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.deployment.group import GroupingOrder, group_bank, how_many, train_groups
from cldistill_plugins.deployment.group_manifests import only, write_manifests
from cldistill_plugins.deployment.group_run import GroupRequest, measuring_manifest, measuring_run
from cldistill_plugins.deployment.least_interference import Grouping
from cldistill_plugins.deployment.settings import LeastInterferenceSettings
from cldistill_plugins.deployment.split import Group, Groups, read_groups
from cldistill_plugins.generation.splits import routed
from cldistill_plugins.schema.api import read_settings

torch.set_num_threads(1)


class ByGradient:
    """Looks at one update of each effect, then deals the effects out like cards."""

    def __init__(self, settings: LeastInterferenceSettings) -> None:
        self.settings = settings

    def group(self, request: GroupRequest) -> Grouping:
        names = [effect.name for effect in request.effects]
        seen = {name: float(len(request.update(name, 0).batch.items)) for name in names}
        request.advance(0.5)
        request.advance(1.0)
        if self.settings.seed:
            names.reverse()
        groups = tuple(tuple(names[i :: request.groups]) for i in range(request.groups))
        table = {a: {b: seen[a] for b in names if b != a} for a in names}
        return Grouping(groups, table, "items a batch", {"within": 2.0})


class Weights(Settings):
    """Options of a router that has one for each effect."""

    weights: dict[str, float] = Field(default_factory=dict)


def unused(*args: object) -> Any:
    raise AssertionError("built, though nothing is to be trained")


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """The kit's parts; the rule by which a bank is split is that of these tests."""
    monkeypatch.setattr("cldistill_plugins.deployment.least_interference.LeastInterference", ByGradient)
    return testing.catalogue_with()


def order(folder: Path, catalogue: Catalogue, groups: int = 2, seed: int = 0, **parts: Any) -> GroupingOrder:
    file = folder / "bank.of.two.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(folder, **parts), sort_keys=False))
    checked = check_manifest(str(file), catalogue=catalogue)
    settings = LeastInterferenceSettings(seed=seed)
    return GroupingOrder(checked, settings, groups, folder / "out", "cldistill group …")


def carry_out(asked: GroupingOrder) -> Groups:
    return group_bank(asked, asked.output.parent / "cache", SilentStages(), never)


@pytest.mark.parametrize(
    ("effects", "into", "at_most", "groups"), [(6, 2, None, 2), (180, None, 50, 4), (50, None, 50, 1)]
)
def test_the_number_of_groups(effects: int, into: int | None, at_most: int | None, groups: int) -> None:
    assert how_many(effects, into, at_most) == groups
    assert at_most is None or math.ceil(effects / groups) <= at_most


@pytest.mark.parametrize(("into", "at_most"), [(None, None), (2, 3), (7, None)])
def test_an_impossible_number_is_refused(into: int | None, at_most: int | None) -> None:
    with pytest.raises(ManifestError, match="--into"):
        how_many(6, into, at_most)


@pytest.mark.slow
def test_a_split_is_written_and_trained(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    found = carry_out(order(tmp_path, catalogue))
    assert [group.effects for group in found.groups] == [("invert",), ("soften",)]
    told = json.loads((tmp_path / "out/interference.json").read_text())
    assert told["effects"] == ["invert", "soften"] and told["interference"] == [[None, 2.0], [2.0, None]]
    assert (told["measured"], told["seed"], told["grouper"]["use"]) == ("items a batch", 0, "least-interference")
    assert read_groups(tmp_path / "out") == found
    first = yaml.safe_load((tmp_path / "out/group-1.yaml").read_text())
    assert set(first) == {"extends", "name", "effects"}
    assert first["extends"] == str((tmp_path / "bank.of.two.yaml").resolve())

    monkeypatch.setattr("cldistill.manifest.check.load_catalogue", lambda: catalogue)
    screen = Console(file=io.StringIO(), width=100)
    assert train_groups(found, screen, "cldistill group …")
    for effect in ("invert", "soften"):
        file = found.file_of(effect)
        assert file.is_file()
        assert [e["name"] for e in json.loads((file.parent / "effects.json").read_text())["effects"]] == [effect]


def test_the_same_split_is_taken_as_it_is_and_another_refused(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = carry_out(order(tmp_path, catalogue))
    monkeypatch.setattr(ByGradient, "group", lambda *args: pytest.fail("measured again"))
    assert carry_out(order(tmp_path, catalogue)) == found
    for other in (order(tmp_path, catalogue, groups=1), order(tmp_path, catalogue, seed=1)):
        with pytest.raises(CollectionError, match="holds the split of another"):
            carry_out(other)


def test_a_place_that_cannot_be_written_to_is_told_before_the_measuring(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByGradient, "group", lambda *args: pytest.fail("measured"))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileExistsError):
        carry_out(order(tmp_path, catalogue))


def test_options_are_judged() -> None:
    def read(*words: str) -> LeastInterferenceSettings:
        return read_settings(LeastInterferenceSettings, words, "--option", Path())

    assert read("starts=4", "evaluation=out") == LeastInterferenceSettings(starts=4, evaluation=Path("out"))
    with pytest.raises(OptionsError, match=r"--option:1: start: .*did you mean 'starts'"):
        read("start=4")
    with pytest.raises(OptionsError, match="KEY=VALUE"):
        read("starts")


def test_what_is_said_by_effect_is_cut_to_the_group(tmp_path: Path) -> None:
    needs = Needs(streams=frozenset({"effect"}))
    router = stream_router("weighing", "by weight", Weights, lambda s: needs, unused)
    shown = testing.write_pictures(tmp_path / "shown")
    asked = order(
        tmp_path, testing.catalogue_with(router),
        router={"use": "weighing", "options": {"weights": {"invert": 2.0, "soften": 3.0}}},
        samples={"images": str(shown), "effects": ["invert"]},
    )  # fmt: skip
    groups = [Group("a", ("invert",), "a.yaml", "a"), Group("b", ("soften",), "b.yaml", "b")]
    write_manifests(asked.checked, groups, tmp_path / "out", changed=False)
    catalogue = testing.catalogue_with(router)
    for name, weights, rows in (("a", {"invert": 2.0}, ("invert",)), ("b", {"soften": 3.0}, None)):
        checked = check_manifest(str(tmp_path / f"out/{name}.yaml"), catalogue=catalogue)
        assert checked.router.settings == Weights(weights=weights)
        assert (checked.manifest.samples.effects if checked.manifest.samples else None) == rows
        assert [effect.name for effect in checked.effects] == list(weights)
        assert checked.manifest.train == asked.checked.manifest.train


def test_only_maps_by_effect_are_cut() -> None:
    part = {"options": {"by": {"a": 1, "b": 2}, "other": {"a": 1, "z": 2}, "empty": {}, "list": [{"b": 1}, 3]}}
    assert only(part, {"a", "b"}, ["a"]) == {
        "options": {"by": {"a": 1}, "other": {"a": 1, "z": 2}, "empty": {}, "list": [{}, 3]}
    }


def test_measuring_touches_neither_teachers_nor_general_pictures(tmp_path: Path, catalogue: Catalogue) -> None:
    checked = order(tmp_path, catalogue).checked
    small = measuring_manifest(checked)
    assert set(small.teachers.values()) == {None} and small.manifest.general is None
    assert small.manifest.targets is not None and small.manifest.targets.origin == "pair"
    assert [loss.name for loss in small.losses] == ["tiny-flow"]


def test_a_measuring_run_is_made_of_a_manifest_with_losses_of_other_slots(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    critic = {"use": "tiny-flow", "slot": "critic"}
    slots = {"student": {"rank": 2, "lr": 1e-2}, "critic": {"rank": 2, "lr": 1e-2}}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(tmp_path, losses=[critic, {"use": "tiny-flow"}], slots=slots)))
    checked = check_manifest(str(file), catalogue=catalogue)
    run = measuring_run(checked, tmp_path / "out", tmp_path / "cache", SilentStages(), never)
    assert [term.slot for term in run.terms] == ["student"]


def test_an_effect_without_pairs_cannot_be_measured(tmp_path: Path, catalogue: Catalogue) -> None:
    checked = order(tmp_path, catalogue).checked
    (first, second), nothing = checked.effects, None
    with pytest.raises(ManifestError, match=r"bank\.of\.two\.yaml:\d+: effects\.1: 'soften' has no pairs"):
        measuring_manifest(replace(checked, effects=(first, replace(second, pairs=nothing))))


@pytest.mark.slow
def test_an_effect_is_routed_to_its_collection(tmp_path: Path, catalogue: Catalogue) -> None:
    found = carry_out(order(tmp_path, catalogue))
    assert routed(found.folder, ["soften"]) == found.folder / "group-2/collection"
    assert routed(tmp_path, ["anything"]) == tmp_path
    with pytest.raises(CollectionError, match=r"lie in 2 collections \(tiny-1, tiny-2\); apply one, then the other"):
        routed(found.folder, ["invert", "soften"])
    done = CliRunner().invoke(cli.app, ["generate", str(found.folder), "-i", "x.png", "-e", "soften"])
    assert isinstance(done.exception, CollectionError)  # routed, and not trained yet
    assert str(found.folder / "group-2/collection") in str(done.exception)


def test_groups_are_read_back_or_refused(tmp_path: Path, catalogue: Catalogue) -> None:
    found = carry_out(order(tmp_path, catalogue))
    with pytest.raises(CollectionError, match="did you mean 'soften'"):
        found.file_of("softn")
    with pytest.raises(CollectionError, match="no such file"):
        read_groups(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (("format",), 9, "format: Input should be 1"),
        (("figures", "within"), 10**400, "figures.within: "),
        (("figures", "within"), 1e999, "figures.within: Input should be a finite number"),
        (("figures", "a\x1b[2J"), 1.0, r"figures.a\x1b[2J"),
        (("name",), "two\nlines", "name: "),
        (("groups", 0, "effects"), "soften", "groups.0.effects: Input should be a valid list"),
        (("groups", 0, "effects", 0), "../soften", "groups.0.effects.0: "),
        (("groups", 1, "name"), "tiny-1", "groups: Value error, 2 groups have the name 'tiny-1'"),
        (("groups", 1, "effects", 0), "invert", "groups: Value error, 2 times it lists the effect 'invert'"),
        (("groups", 0, "run"), 3, "names 3, which is no path inside this folder"),
    ],
)
def test_a_changed_split_is_refused_with_its_key(
    tmp_path: Path, catalogue: Catalogue, key: tuple[str | int, ...], value: object, told: str
) -> None:
    carry_out(order(tmp_path, catalogue))
    file = tmp_path / "out/groups.json"
    data = json.loads(file.read_text())
    inner: Any = data
    for part in key[:-1]:
        inner = inner[part]
    inner[key[-1]] = value
    file.write_text(json.dumps(data).replace("Infinity", "1e999"))
    with pytest.raises((CollectionError, UnsafePathError), match=re.escape(told)) as refused:
        read_groups(file)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_command_splits_and_shows(tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    order(tmp_path, catalogue)
    monkeypatch.setattr("cldistill.manifest.check.load_catalogue", lambda: catalogue)
    words = ["group", str(tmp_path / "bank.of.two.yaml"), "--into", "2", "-o", str(tmp_path / "cmd")]
    done = CliRunner().invoke(cli.app, [*words, "--set", "train.generator_steps=9"])
    assert done.exit_code == 0, done.output
    assert "tiny-1" in done.output and "items a batch: within 2" in done.output
    checked = check_manifest(str(tmp_path / "cmd/group-2.yaml"), catalogue=catalogue)
    assert checked.manifest.train.generator_steps == 9 and checked.manifest.name == "tiny-2"


@pytest.mark.slow
def test_the_command_lets_its_runs_go_on_after_a_plugin_has_changed(
    tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(tmp_path, catalogue)
    monkeypatch.setattr("cldistill.manifest.check.load_catalogue", lambda: catalogue)
    seen: list[tuple[str, bool]] = []

    def execute(checked: CheckedManifest, output: Path, *rest: Any, may_change: list[str]) -> Outcome:
        seen.append((output.name, may_change == ["plugins"]))
        return Outcome(4, finished=True)

    monkeypatch.setattr("cldistill.runner.execute", execute)
    words = ["group", str(tmp_path / "bank.of.two.yaml"), "--into", "2", "-o", str(tmp_path / "cmd"), "--train"]
    for options, changed in (([], False), (["--changed-plugins"], True)):
        done = CliRunner().invoke(cli.app, [*words, *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert seen == [("group-1", changed), ("group-2", changed)]
        seen.clear()
