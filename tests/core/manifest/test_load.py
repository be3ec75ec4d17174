"""Reading manifests: YAML 1.2 scalars, places, `extends`, `--set`, and every error with its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.load import load_manifest, merge, recipes
from cldistill.manifest.yaml import Value, locate, parse
from cldistill.training.run import LrPhase


def read(text: str) -> Value:
    return parse(text, "m.yaml", Path("/somewhere"))


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return str(caught.value)


def load_error(path: Any, *overrides: str) -> str:
    with pytest.raises(ManifestError) as caught:
        load_manifest(path, overrides)
    return str(caught.value)


# --- YAML


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("-.5", -0.5), ("3.", 3.0), (".inf", float("inf")), ("7", 7), ("0x10", 16),
        ("0o17", 15), ("true", True), ("no", "no"), ("on", "on"), ("~", None), ("", None), ("2026-11-23", "2026-11-23"),
        ("12:30", "12:30"), ("'1e-4'", "1e-4"), ("1_000", "1_000"), ("manga", "manga"), ("010", 10),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, expected: object) -> None:
    found = read(f"key: {text}").plain()["key"]
    assert found == expected
    assert isinstance(found, bool) == isinstance(expected, bool)


def test_every_key_and_value_has_file_line_and_column() -> None:
    tree = read("a: 1\nlist:\n  - name: x\n    deep: {b: 2}\n")
    value, path = locate(tree, ("list", 0, "deep", "b"))
    assert path == ("list", 0, "deep", "b")
    assert value.key_at is not None
    assert (value.key_at.file, value.key_at.line) == ("m.yaml", 4)
    assert (value.at.line, value.at.root) == (4, Path("/somewhere"))


def test_duplicate_keys_are_refused_with_both_lines() -> None:
    assert refused("a: 1\nb: 2\na: 3\n") == "m.yaml:3: a: this key was already given at m.yaml:1"


def test_syntax_errors_have_a_line() -> None:
    assert refused("a: 1\nb: [1, 2\n").startswith("m.yaml:3: not valid YAML: ")


@pytest.mark.parametrize("text", ["a: !!python/object:os.system {}", "a: !thing 3", "? [1]\n: 2", "a: &x [*x]"])
def test_tags_odd_keys_and_endless_aliases_are_refused(text: str) -> None:
    assert refused(text).startswith("m.yaml")


HABITS = {
    "effects:\n\t- name: x\n": "m.yaml:2: a tab indents",
    "prompt: paint it: red\n": "': ' in it needs quotes",
    'path: "C:\\Users\\me"\n': "write the path with /",
    'path: "C:\\new"\n': "write the path with /",
    "a: &x {b: 1}\nc:\n  <<: *x\n": "m.yaml:3: `<<:` merges nothing",
    "a: 1\n- prompt: paint #3 red\n": "m.yaml:2: prompt: ' #' begins a comment",
    "a: @x\n": "begins with '@' needs quotes",
    'a: "\\e[31m"\n': "U+001B",
    "a: b\0c\n": "U+0000",
    "a: " + "9" * 5000: "too many digits",
    "a: 0x" + "f" * 5000: "too many digits",
    "a: [" + "[" * 500 + "]" * 501: "deep",
    "\n".join(" " * i + "a:" for i in range(500)): "m.yaml:101: ",
    "- " * 20_000 + "x": "deep",
    "[" * 100_000: "depth",
    "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)): "too large",
    "a:\n- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 400)): "m.yaml:102: is too large or deep",
    "a: &a " + "x" * 200_000 + "\nb: [" + "*a, " * 2000 + "]\n": "too large",
    "# " + "x" * 3_000_000: "letters",
}


@pytest.mark.parametrize("text", HABITS, ids=range(len(HABITS)))
def test_habits_and_hostile_files_are_answered_in_the_words_of_the_mistake(text: str) -> None:
    assert HABITS[text] in refused(text)


def test_comments_after_prompts_and_colours_in_quotes_stay() -> None:
    assert read('prompt: red  # so\nother: "#3"\n').plain() == {"prompt": "red", "other": "#3"}


def test_a_file_that_cannot_be_a_manifest(world: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for reference in (
        "/dev/zero",
        tmp_path / "pipe.yaml",
        tmp_path / "loop.yaml",
        "a\0b.yaml",
        "a" * 5000 + ".yaml",
        "~nobody-x/y.yaml",
    ):
        with pytest.raises(ManifestError):
            check_manifest(str(reference))


def test_aliases_may_be_shared() -> None:
    assert read("a: &x {b: 1}\nc: *x\n").plain() == {"a": {"b": 1}, "c": {"b": 1}}


# --- merging


def test_maps_merge_deeply_and_lists_are_replaced() -> None:
    merged = merge(read("a: {b: 1, c: 2}\nd: [1, 2]"), read("a: {c: 3}\nd: [4]")).plain()
    assert merged == {"a": {"b": 1, "c": 3}, "d": [4]}


def test_another_component_does_not_inherit_options() -> None:
    base = read("router: {use: pdsr, options: {p_switch: 0.5}}")
    assert merge(base, read("router: {use: mine}")).plain() == {"router": {"use": "mine"}}
    kept = merge(base, read("router: {use: pdsr, options: {other: 1}}")).plain()
    assert kept == {"router": {"use": "pdsr", "options": {"p_switch": 0.5, "other": 1}}}


def test_extends_keeps_places_and_roots(world: Any) -> None:
    (world.root / "sub").mkdir()
    world.data["effects"][0]["pairs"] = "data/manga"
    world.data["sampler"] = {"steps": 8}
    (world.root / "sub/base.yaml").write_text(yaml.safe_dump(world.data, sort_keys=False))
    top = world.root / "top.yaml"
    top.write_text("extends: sub/base.yaml\nname: top\nsampler:\n  shift: 2.0\ngeneral:\n  images: mine\n")
    file = load_manifest("top.yaml")
    assert (file.manifest.name, file.manifest.sampler.steps, file.manifest.sampler.shift) == ("top", 8, 2.0)
    assert file.manifest.effects[0].pairs == world.root / "sub/data/manga"
    assert file.manifest.general is not None
    assert file.manifest.general.images == world.root / "mine"
    assert file.manifest.general.instructions == world.root / "sub/data/general.jsonl"
    assert file.where("sampler", "shift") == "top.yaml:4: sampler.shift"
    assert str(file.place("sampler", "steps")).startswith("sub/base.yaml:")
    top.write_text("extends: sub/base.yaml\nsampler: {stepz: 4}\n")
    assert load_error("top.yaml") == "top.yaml:2: sampler.stepz: unknown key (4); did you mean 'steps'?"


def test_null_takes_an_inherited_map_out() -> None:
    base = read("general: {images: a, instructions: b}\nslots: {student: {init: null}, critic: {rank: 4}}")
    merged = merge(base, read("general: null\nslots: {critic: null, student: {init: null, rank: 2}}"))
    assert merged.plain() == {"slots": {"student": {"init": None, "rank": 2}}}


def test_extends_of_itself_and_of_nothing(world: Any) -> None:
    (world.root / "a.yaml").write_text("extends: b.yaml\n")
    (world.root / "b.yaml").write_text("name: b\nextends: a.yaml\n")
    assert "b.yaml:2: extends: a manifest extends itself" in load_error("a.yaml")
    (world.root / "c.yaml").write_text("extends: nowhere.yaml\n")
    assert load_error("c.yaml") == "c.yaml:1: extends: nowhere.yaml: cannot be read: No such file or directory"
    (world.root / "d.yaml").write_text("extends: colectionlora-50\n")
    assert load_error("d.yaml").endswith(
        "neither a manifest file nor a shipped recipe; did you mean 'collectionlora-50'?"
    )


def test_extending_a_recipe_takes_its_relative_paths_from_the_extending_file(world: Any) -> None:
    (world.root / "own").mkdir()
    (world.root / "own/mine.yaml").write_text("extends: one-effect\nname: mine\nbase: {options: {resolution: 512}}\n")
    manifest = load_manifest("own/mine.yaml").manifest
    assert manifest.effects[0].pairs == world.root / "own/data/my-effect"
    assert manifest.base.options["resolution"] == 512
    assert manifest.base.options["model"] == "Qwen/Qwen-Image-Edit-2509"


# --- --set


def test_set_reaches_lists_by_index_name_or_use(world: Any) -> None:
    world.write()
    settings = ("losses.1.options.tau_max=700", "losses.fm.weight=0.5", "train.seed=7")
    manifest = load_manifest("manifest.yaml", settings).manifest
    assert manifest.losses[1].options["tau_max"] == 700
    assert manifest.losses[2].weight == 0.5
    assert manifest.train.seed == 7


def test_set_reads_yaml_and_makes_maps_that_were_not_there(world: Any) -> None:
    world.write()
    manifest = load_manifest("manifest.yaml", ("samples.images=pics", "slots.student.lr=1e-5", "targets=null")).manifest
    assert manifest.samples is not None
    assert manifest.samples.images == world.root / "pics"
    assert manifest.slots["student"].lr == 1e-5
    assert manifest.targets is None


@pytest.mark.parametrize("key", ["slots.critic", "general", "targets", "router.options", "losses.fm.options"])
def test_set_takes_out_what_extends_may(world: Any, key: str) -> None:
    world.data["losses"][2]["options"] = {}
    world.write()
    assert _at(load_manifest("manifest.yaml").tree, key) is not None
    first, *inner = key.split(".")
    nested: Any = None
    for name in reversed(inner):
        nested = {name: nested}
    by_set = [load_manifest("manifest.yaml", (f"{key}{value}",)) for value in ("=null", "=~", "=")]
    assert all(_at(file.tree, key) is None for file in by_set)
    if first != "losses":  # a list is replaced as a whole by what extends it
        Path("over.yaml").write_text(yaml.safe_dump({"extends": "manifest.yaml", first: nested}))
        assert all(file.manifest == load_manifest("over.yaml").manifest for file in by_set)


def _at(tree: Value, key: str) -> Value | None:
    found: Value | None = tree
    for part in key.split("."):
        data = found.data if found is not None else None
        if isinstance(data, list):
            found = next(entry for entry in data if entry.plain()["use"] == part)
        else:
            found = data.get(part) if isinstance(data, dict) else None
    return found


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("losses.9.weight=1", "there is no entry 9: the list has 4 (0 is the first)"),
        ("losses.bz.weight=1", "no entry is called 'bz'; did you mean 'bs'?"),
        ("name.first=x", "'first' lies inside the plain value 'two-effects' of manifest.yaml:2"),
        ("train.seed", "write key.path=value, for instance train.seed=7"),
        ("train..seed=1", "write key.path=value"),
        ("train.seeed=1", "--set: train.seeed: unknown key (1); did you mean 'seed'?"),
        ("generator_steps=3", "--set: generator_steps: unknown key (3); did you mean 'train.generator_steps'?"),
    ],
)
def test_set_says_what_is_wrong(world: Any, override: str, expected: str) -> None:
    world.write()
    text = load_error("manifest.yaml", override)
    assert text.startswith("--set")
    assert expected in text


# --- shape


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("cldistill=2", "cldistill: must be 1 (2)"),
        ("name=a/b", "name: must match"),
        ("effects=[]", "effects: must not be empty ([])"),
        ("effects.0.prompt=", "effects.0.prompt: must be a valid string (None)"),
        ("losses={use: bs}", "losses: must be a list ({'use': 'bs'})"),
        ("base=tiny", "base: must be a map of keys to values ('tiny')"),
        ("slots.student.rank=0", "slots.student.rank: must be greater than or equal to 1 (0)"),
        ("slots.student.ema=1", "slots.student.ema: must be less than 1 (1)"),
        ("slots.student.lr=fast", "slots.student.lr: must be a valid number"),
        ("slots.student.lr=[{lr: 1, wramup: 2}]", "slots.student.lr.0.wramup: unknown key (2); did you mean 'warmup'?"),
        ("slots.student.betas=[0.9]", "slots.student.betas.1: is missing"),
        ("targets.from=pairs", "targets.from: must be 'teacher' or 'pair' ('pairs'); did you mean 'pair'?"),
        ("train.mixed_precision=fp16", "train.mixed_precision: must be 'no' or 'bf16' ('fp16')"),
        ("train.device=cuda:1", "train.device: must be 'auto' or 'cpu' ('cuda:1')"),
        ("slots={student: {}, teacher: {}}", "no slot may be called so: the engine mounts the effects' teachers"),
        ("slots={student: {}, teacher-training: {}}", "no slot may be called so: a teacher that is trained from pairs"),
        (
            "slots={student: {ema: 0.9}, ema-student: {}}",
            "a checkpoint keeps a part of slot 'student' as 'ema-student'",
        ),
        ("slots={student: {}, optimizer-student: {}}", "a part of slot 'student' as 'optimizer-student'"),
        (
            "general.images=package:no_such_package/x",
            "general.images: No module named 'no_such_package' that registered",
        ),
    ],
)
def test_the_shape_of_a_manifest(world: Any, override: str, expected: str) -> None:
    world.write()
    assert expected in load_error("manifest.yaml", override)


def test_all_mistakes_are_told_at_once(world: Any) -> None:
    del world.data["router"]
    world.data["losses"][0]["weigth"] = 2
    world.data["effects"][1]["promt"] = world.data["effects"][1].pop("prompt")
    world.write()
    assert load_error("manifest.yaml").splitlines() == [
        f"manifest.yaml:{world.line('name: gold')}: effects.1.prompt: is missing",
        f"manifest.yaml:{world.line('promt')}: effects.1.promt: unknown key ('turn into gold'); did you mean 'prompt'?",
        "manifest.yaml:1: router: is missing",
        f"manifest.yaml:{world.line('weigth')}: losses.0.weigth: unknown key (2); did you mean 'weight'?",
    ]


def test_package_paths_and_slots_to_start_from(world: Any) -> None:
    world.write()
    settings = ("general.images=package:cldistill_registry/pics", "slots.critic.init=slot:student")
    manifest = load_manifest("manifest.yaml", (*settings, "slots.student.init=old.safetensors")).manifest
    assert manifest.general is not None
    assert manifest.general.images.parts[-2:] == ("cldistill_registry", "pics")
    assert manifest.slots["critic"].init == "slot:student"
    assert manifest.slots["student"].init == world.root / "old.safetensors"


def test_learning_rates_are_phases_whichever_way_they_are_written(world: Any) -> None:
    settings = ("slots.student.warmup=10", "slots.critic.lr=[{lr: 1e-3, end_lr: 1e-4}, {from_step: 5, lr: 2e-4}]")
    slots = world.check(*settings).slots
    assert slots["student"].lr == (LrPhase(0, 1e-4, None, 10),)
    assert slots["critic"].lr == (LrPhase(0, 1e-3, 1e-4), LrPhase(5, 2e-4))


def test_a_manifest_cannot_be_changed(world: Any) -> None:
    world.write()
    manifest = load_manifest("manifest.yaml").manifest
    with pytest.raises(ValueError, match="frozen"):
        manifest.train.seed = 3


# --- recipes


def test_shipped_recipes_are_found_by_name() -> None:
    assert {"collectionlora-50", "one-effect"} <= set(recipes())


@pytest.mark.parametrize("name", ["collectionlora-50", "one-effect"])
def test_every_recipe_is_well_formed(name: str) -> None:
    assert load_manifest(name).manifest.name == name


def test_an_unknown_recipe_names_the_nearest(world: Any) -> None:
    assert load_error("one-efect") == (
        "one-efect: neither a manifest file nor a shipped recipe; did you mean 'one-effect'?"
    )
    assert load_error("missing.yaml") == "missing.yaml: cannot be read: No such file or directory"


@pytest.mark.parametrize("name", ["pairs", "data/pairs", "odd.yaml"])
def test_a_folder_in_place_of_a_manifest_is_told_of_init(world: Any, name: str) -> None:
    (world.root / name).mkdir(parents=True)
    assert load_error(name) == (
        f"{name}: neither a manifest file nor a shipped recipe; it is a folder: `cldistill init` writes a manifest for what "
        "lies in one"
    )


def test_a_slot_may_be_called_like_the_average_of_a_slot_that_keeps_none(world: Any) -> None:
    world.write()
    slots = load_manifest("manifest.yaml", ["slots={student: {}, ema-student: {}}"]).manifest.slots
    assert set(slots) == {"student", "ema-student"}
