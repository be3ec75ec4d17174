"""Every promise about what `cldistill check` says, one test each."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from cldistill.catalogue import Catalogue
from cldistill.component import Needs, Settings, loss_term, metric, prompt_isolator, stream_router
from cldistill.errors import DataError, ManifestError, OptionsError, PluginLoadError
from cldistill.manifest import prompts
from cldistill.manifest.check import check_manifest
from cldistill.manifest.models import Sampler
from cldistill.manifest.prompts import preview_prompts
from cldistill.manifest.resolved import resolve
from cldistill.manifest.rules import lowest_sigma
from cldistill.plugins import PluginFailure, PluginSet
from cldistill.records import Prompts
from cldistill.schedule import Schedule
from cldistill.testing.pictures import write_pairs


def message(world: Any, *overrides: str, error: type[Exception] = ManifestError, files: bool = True) -> str:
    with pytest.raises(error) as caught:
        world.check(*overrides, files=files)
    return str(caught.value)


def test_bad_pictures_stop_the_check_or_are_left_out_and_counted(world: Any) -> None:
    for broken in ("data/manga/source/a.png", "data/general/dog.png"):
        (world.root / broken).write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with (world.root / "data/general.jsonl").open("a") as lines:
        lines.write('{"image": "dog.png", "instruction": "make it red"}\n')
    text = message(world)
    assert "1 pairs are wrong; `data: {on_error: skip}` would leave them out" in text
    assert "a.png" in text and "dog.png" in text
    checked = world.check("data.on_error=skip")
    assert [len(checked.items[pool]) for pool in ("manga", "gold", "general")] == [1, 2, 1]
    assert any(line.startswith("manga: 1 pairs") and "1 left out" in line for line in checked.file_lines())


def test_a_manifest_that_fits(world: Any) -> None:
    checked = world.check()
    assert [loss.slot for loss in checked.losses] == ["student", "student", "student", "critic"]
    assert checked.losses[1].streams == {"effect"}
    assert checked.streams == ("effect", "general")
    assert {pool: len(items) for pool, items in checked.items.items()} == {"manga": 2, "gold": 2, "general": 1}
    assert checked.teacher_ranks == {"gold": 4}
    assert checked.slots["student"].targets == checked.description.targets


def test_the_resolved_manifest_holds_every_default_and_loads_again(world: Any) -> None:
    checked = world.check()
    resolved = resolve(checked)
    assert resolved["losses"][1]["options"] == {"tau_max": 750.0, "tau_min": 500.0}
    assert resolved["slots"]["critic"]["alpha"] == 8.0
    world.data = resolved
    assert resolve(world.check()) == resolved


def test_two_losses_of_one_name_are_told_apart(world: Any) -> None:
    world.data["losses"].append({"use": "fm", "from_step": 50})
    assert [loss.name for loss in world.check().losses] == ["bs", "ts", "fm", "score", "fm-2"]


# --- names exist


def test_unknown_component_has_place_and_nearest_name(world: Any) -> None:
    world.data["losses"][1]["use"] = "tss"
    text = message(world, error=PluginLoadError)
    assert text == f"manifest.yaml:{world.line('tss')}: losses.1.use: no loss term is called 'tss'; did you mean 'ts'?"


def test_missing_component_quotes_the_first_failed_plugin(world: Any) -> None:
    failure = PluginFailure("my-losses", "my-dist", "0.3", ImportError("no module named 'lpips'"))
    world.catalogue.plugins = PluginSet(world.catalogue.plugins.loaded, (failure,))
    world.data["losses"][1]["use"] = "wobble"
    text = message(world, error=PluginLoadError)
    assert "plugin 'my-losses' of my-dist 0.3: ImportError: no module named 'lpips'" in text


# --- settings


def test_option_out_of_range_is_found_at_its_line(world: Any) -> None:
    text = message(world, "losses.1.options.tau_min=-1", error=OptionsError)
    assert text == "--set: losses.1.options.tau_min: must be greater than or equal to 0 (-1)"
    world.data["losses"][1]["options"]["tau_max"] = 1200
    text = message(world, error=OptionsError)
    assert (
        text
        == f"manifest.yaml:{world.line('1200')}: losses.1.options.tau_max: must be less than or equal to 1000 (1200)"
    )


def test_unknown_option_names_the_nearest(world: Any) -> None:
    world.data["losses"][1]["options"] = {"tau_mx": 700}
    text = message(world, error=OptionsError)
    assert text == (
        f"manifest.yaml:{world.line('tau_mx')}: losses.1.options.tau_mx: unknown key (700); did you mean 'tau_max'?"
    )


def test_missing_option_where_no_options_are_written(world: Any) -> None:
    world.data["effects"][0]["teacher"] = {"use": "file"}
    assert message(world, error=OptionsError).endswith("effects.0.teacher.options.path: is missing")


def test_an_error_in_describe_names_plugin_and_place(world: Any, catalogue_of: Any) -> None:
    def describe(settings: Settings) -> Needs:
        raise FileNotFoundError("config.json")

    world.catalogue = catalogue_of(loss_term("odd", "", Settings, describe, lambda s, c: pytest.fail("built")))
    world.data["losses"].append({"use": "odd"})
    text = message(world, error=OptionsError)
    assert text.endswith("odd (plugin 'fakes' of fake-plugins 1.0): FileNotFoundError: config.json")


def test_options_merged_from_another_folder_keep_its_root(world: Any) -> None:
    (world.root / "shared").mkdir()
    (world.root / "shared/base.yaml").write_text("base: {use: tiny, options: {model: weights, width: 32}}\n")
    del world.data["base"]
    world.data["extends"] = "shared/base.yaml"
    world.data["base"] = {"options": {"width": 16}}
    settings = world.check().base.settings
    assert settings.model == world.root / "shared/weights"
    assert settings.width == 16


# --- what parts need of one another


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("losses.3.slot=critc", "losses.3.slot: score trains a slot that the manifest does not have ('critc')"),
        ("losses.2.streams=[efect]", "losses.2.streams.0: the router dual yields no such stream ('efect'); did"),
        ("losses.1.streams=[general]", "losses.1.streams.0: ts is not made for this stream ('general')"),
        ("targets=null", "losses.1: ts needs a target, and there are none; add `targets: {from: teacher, steps: 40}`"),
        ("losses.0.until_step=0", "losses.0.until_step: must be greater than from_step, which is 0 (0)"),
        ("losses.0.from_step=100", "losses.0.from_step: the run ends at step 100, before this begins (100)"),
        ("general=null", "router: dual draws from the general pool, which the manifest does not have; add `general:"),
        ("effects.gold.pairs=null", "effects.1.pairs: is missing, and trained trains the teacher on them ('gold')"),
        ("effects.manga.pairs=null", "effects.0.pairs: is missing: the effect stream draws its pictures from them"),
        ("effects.manga.teacher=null", "effects.0.teacher: is missing, and bs, ts, fm asks the"),
        ("effects.0.name=general", "effects.0.name: 'general' is the name of the general pool"),
        ("slots.critic.init=slot:studnt", "slots.critic.init: there is no other slot of that name ('slot:studnt')"),
        ("slots.critic={rank: 4, init: 'slot:student'}", "slots.critic.init: to be copied, 'student' must have"),
        ("slots.spare.rank=4", "slots.spare: no loss trains this slot, or calls it; give one `slot: spare` or remove it"),
        ("slots.critic.targets=[to_qq]", "slots.critic.targets.0: the base has no such module ('to_qq'); did"),
        ("slots.critic=null", "losses.0: bs calls the slot 'critic', which the manifest does not have"),
        ("slots.critic.from_step=20", "losses.0: bs calls the slot 'critic' from step 0, but it starts at 20"),
        ("slots.student.reuse_sample=true", "slots.student.reuse_sample: only a slot listed after 'student'"),
        ("slots.student.lr=[{from_step: 5, lr: 1}]", "slots.student.lr: phases must rise and begin by"),
        ("observers=[{use: board}]", "observers.0.use: needs no_such_package_here, which is not installed"),
        ("samples={images: data/general, effects: [mango]}", "samples.effects.0: there is no such effect ('mango')"),
        ("losses.0.streams=[effect]", "losses: none trains the student on the stream 'general', which the router dual"),
        ("losses.0.weight=0", "losses: none trains the student on the stream 'general', which the router dual yields;"),
        ("sampler.steps=2", "sampler.steps: ts (losses.1) needs a step at a sigma below 0.75, and the lowest of 2 steps"),
        ("sampler={steps: 5, shift: 20}", "sampler.steps: ts (losses.1) needs a step at a sigma below 0.75"),
        ("requires=['pytest>=900']", "requires.0: needs pytest>=900, but "),
        ("requires=[no-such-dist-at-all]", "requires.0: no-such-dist-at-all is not installed; pip install"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together(world: Any, override: str, expected: str) -> None:
    text = message(world, override)
    assert re.match(r"(--set|manifest\.yaml:\d+): ", text), text
    assert expected in text


def test_effects_are_called_in_any_script(world: Any) -> None:
    for good in ("水彩 画", "x" * 300, "two words: <b>"):
        world.data["effects"][1]["name"] = good
        assert world.check().manifest.effects[1].name == good
    for bad in ("a/b", ".x", "x" * 301, "a+b", "a\nb"):
        world.data["effects"][1]["name"] = bad
        assert "is no name: one line of up to 300 letters" in message(world)


def test_duplicate_effects_name_both_places(world: Any) -> None:
    world.data["effects"][1]["name"] = "manga"
    text = message(world)
    assert re.fullmatch(
        r"manifest\.yaml:11: effects\.1\.name: this effect was already given at manifest\.yaml:6 \('manga'\)", text
    ), text


def test_a_called_slot_must_exist(world: Any) -> None:
    del world.data["slots"]["critic"]
    world.data["losses"].pop()
    assert "losses.0: bs calls the slot 'critic', which the manifest does not have" in message(world)


def test_without_a_student_there_is_no_collection(world: Any) -> None:
    world.data["slots"]["studnt"] = world.data["slots"].pop("student")
    assert "slots: there is no slot 'student', from which the collection is made; did you mean 'studnt'?" in message(
        world
    )


def test_pairs_as_targets_do_not_reach_the_general_stream(world: Any) -> None:
    world.data["losses"][2]["streams"] = ["effect", "general"]
    assert "fm needs targets in the general stream, whose pictures have no pair" in message(world, "targets.from=pair")


def test_a_loss_none_of_whose_streams_is_routed(world: Any, catalogue_of: Any) -> None:
    only = stream_router(
        "only", "", Settings, lambda s: Needs(streams=frozenset({"general"})), lambda s, c: pytest.fail("")
    )
    world.catalogue = catalogue_of(only)
    world.data["router"] = {"use": "only"}
    world.data["losses"].pop(2)
    assert "losses.1: ts is made for the streams ['effect'], but the router only yields ['general']" in message(world)


def test_an_effect_needs_no_teacher_if_nothing_asks_for_it(world: Any) -> None:
    world.data["losses"] = [{"use": "fm", "streams": ["effect"]}]
    del world.data["slots"]["critic"]
    overrides = ("effects.manga.teacher=null", "targets.from=pair", "router.options.p_switch=1")
    assert world.check(*overrides).teachers["manga"] is None


# --- a stream that ends


def test_a_loss_that_asks_the_teacher_may_meet_batches_of_several_effects(world: Any) -> None:
    assert world.check("router.options.mixed_until=20").streams == ("effect", "general", "mixed")


def test_a_mixed_phase_needs_a_loss_that_has_begun_by_then(world: Any) -> None:
    world.data["losses"][0]["from_step"] = 20
    world.data["losses"][2].update({"streams": ["mixed"], "from_step": 20})
    text = message(world, "router.options.mixed_until=20")
    assert "losses: none trains the student on the stream 'mixed', which the router dual yields until step 20;" in text


def test_the_lowest_step_is_the_schedules() -> None:
    for steps, shift, integer in ((1, 3.0, False), (8, 3.0, False), (8, 3.0, True), (7, 1.0, True), (4, 12.5, False)):
        sampler = Sampler(steps=steps, shift=shift, integer_timesteps=integer)
        assert lowest_sigma(sampler) == pytest.approx(float(Schedule(steps, shift, integer).sigmas()[-1]), abs=1e-7)


def test_two_metrics_of_one_name_are_refused(world: Any, catalogue_of: Any) -> None:
    world.catalogue = catalogue_of(metric("sharp", "", Settings, lambda s: Needs(), lambda s, c: pytest.fail("built")))
    (world.root / "held-out").mkdir()
    Image.new("RGB", (8, 8)).save(world.root / "held-out/a.png")
    world.data["evaluate"] = {"images": "held-out", "metrics": [{"use": "sharp"}]}
    assert len(world.check().metrics) == 1
    world.data["evaluate"]["metrics"].append({"use": "sharp"})
    line = world.line("- use: sharp")
    assert message(world) == (
        f"manifest.yaml:{line + 1}: evaluate.metrics.1.use: was already given at manifest.yaml:{line}, and a report has one "
        "place for it ('sharp')"
    )


# --- prompts


def test_an_isolator_that_refuses_has_a_place(world: Any, catalogue_of: Any) -> None:
    class Options(Settings):
        pass

    def build(settings: Options, context: Any) -> Any:
        raise errors.pop()

    world.catalogue = catalogue_of(prompt_isolator("odd", "", Options, lambda s: Needs(), build))
    world.data["prompts"] = {"use": "odd"}
    checked = world.check()
    line = world.line("prompts:")
    errors: list[Exception] = [
        RuntimeError("no luck"),
        DataError("no pairs"),
        OptionsError("captions.x: no such effect"),
    ]
    for expected in (
        "prompts.options: captions.x: no such effect",
        "prompts: no pairs",
        "prompts: odd (plugin 'fakes' of fake-plugins 1.0): RuntimeError: no luck",
    ):
        with pytest.raises(ManifestError) as caught:
            preview_prompts(checked)
        assert str(caught.value) in {f"manifest.yaml:{line}: {expected}", f"manifest.yaml:{line + 1}: {expected}"}


# --- files


def test_first_picture_without_partner_is_named(world: Any) -> None:
    (world.root / "data/gold/target/b.png").unlink()
    text = message(world)
    assert text.startswith(f"manifest.yaml:{world.line('data/gold')}: effects.1.pairs: ")
    assert "data/gold/source/b.png: has no after-picture of the same name" in text


def test_missing_folders_and_files(world: Any) -> None:
    world.data["effects"][0]["pairs"] = "data/mangaa"
    world.data["effects"][1]["teacher"] = {"use": "file", "options": {"path": "teachers/gold.safetensors"}}
    world.data["general"]["images"] = "data/nowhere"
    world.data["samples"] = {"images": "data/held-out"}
    lines = message(world).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "effects.0.pairs", "general.images", "samples.images", "effects.1.teacher.options",
    ]  # fmt: skip
    assert all(str(world.root) in line for line in lines)


def test_without_files_nothing_needs_to_exist(world: Any) -> None:
    world.data["effects"][0]["pairs"] = "data/mangaa"
    assert world.check(files=False).items == {}


def test_bad_instruction_is_found_by_its_line(world: Any) -> None:
    (world.root / "data/general.jsonl").write_text('{"image": "cat.png", "instruction": "x"}\n{"image": "cat.png"}\n')
    assert 'data/general.jsonl:2: needs "image" and "instruction"' in message(world)


def test_paths_start_from_the_manifest_not_from_the_current_folder(
    world: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = world.write()
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    from cldistill.manifest.check import validate
    from cldistill.manifest.load import load_manifest

    assert validate(load_manifest(path), world.catalogue).effects[0].pairs == world.root / "data/manga"


# --- adapters, by their headers alone


def save_lora(path: Path, module: str, rank: int = 3, inner: int = 64, outer: int = 64) -> None:
    path.parent.mkdir(exist_ok=True)
    down, up = np.zeros((rank, inner), np.float32), np.zeros((outer, rank), np.float32)
    name = f"transformer.{module}"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, path)


@pytest.fixture
def teacher_file(world: Any) -> Path:
    world.data["effects"][0]["teacher"] = {"use": "file", "options": {"path": "teachers/manga.safetensors"}}
    return Path(world.root / "teachers/manga.safetensors")


def test_a_teacher_that_fits_tells_its_rank(world: Any, teacher_file: Path) -> None:
    save_lora(teacher_file, "blocks.1.mlp.net.2", inner=256)
    checked = world.check()
    assert checked.teacher_ranks == {"manga": 3, "gold": 4}
    assert checked.file_lines()[-1] == "teacher of manga: 1/1 modules, scale 1.0"
    assert world.check("effects.manga.teacher.options.scale=0.75").file_lines()[-1].endswith("1/1 modules, scale 0.75")


def test_the_same_told_of_fifty_effects_is_one_short_line(world: Any, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs")
    world.data["effects"] = [
        {
            **world.data["effects"][0],
            "name": f"effect-{n:02}",
            "prompt": f"make it {n}",
            "pairs": str(tmp_path / "pairs"),
        }
        for n in range(50)
    ]
    (line,) = world.check().file_lines()
    assert line.startswith("effect-00, effect-01, ")
    assert ", effect-07, 42 more: " in line


@pytest.mark.parametrize(
    ("module", "inner", "expected"),
    [("blocks.7.attn.to_q", 64, "blocks.7.attn.to_q"), ("blocks.0.attn.to_q", 32, "32")],
)
def test_a_teacher_that_does_not_fit_the_base(
    world: Any, teacher_file: Path, module: str, inner: int, expected: str
) -> None:
    save_lora(teacher_file, module, inner=inner)
    text = message(world)
    where = f"manifest.yaml:{world.line('path: teachers')}: effects.0.teacher.options: "
    assert text.startswith(where), text
    assert "manga.safetensors" in text
    assert expected in text


def test_a_teacher_file_that_is_no_adapter(world: Any, teacher_file: Path) -> None:
    teacher_file.parent.mkdir()
    teacher_file.write_bytes(b"not a safetensors file")
    assert "effects.0.teacher.options: " in message(world)


def test_a_file_to_start_from_must_fit_too(world: Any) -> None:
    save_lora(world.root / "teachers/old.safetensors", "blocks.9.attn.to_q")
    text = message(world, "slots.student.init=teachers/old.safetensors")
    assert text.startswith("--set: slots.student.init: ")
    assert "blocks.9.attn.to_q" in text


@pytest.mark.parametrize(
    ("module", "rank", "expected"),
    [
        ("blocks.0.mlp.net.2", 3, "1 of its 1 modules are not among the 4 targets of the slot 'student', the first: 'blocks"),
        ("blocks.0.attn.to_q", 9, "its rank 9 is more than the 8 of the slot 'student'; set slots.student.rank to 9 or more"),
    ],
)  # fmt: skip
def test_a_file_to_start_from_must_find_room_in_the_slot(world: Any, module: str, rank: int, expected: str) -> None:
    save_lora(world.root / "teachers/old.safetensors", module, rank, inner=256 if "mlp" in module else 64)
    text = message(world, "slots.student.init=teachers/old.safetensors")
    assert text.startswith("--set: slots.student.init: ") and expected in text


def test_a_slot_cannot_start_from_a_lokr(world: Any) -> None:
    path = world.root / "teachers/old.safetensors"
    path.parent.mkdir()
    name = "transformer.blocks.0.attn.to_q"
    save_file({f"{name}.lokr_w1": np.zeros((8, 8), np.float32), f"{name}.lokr_w2": np.zeros((8, 8), np.float32)}, path)
    assert "cannot go on from a LoKr; start it from a LoRA" in message(
        world, "slots.student.init=teachers/old.safetensors"
    )


def test_a_file_that_fits_its_slot_passes(world: Any) -> None:
    save_lora(world.root / "teachers/old.safetensors", "blocks.0.attn.to_q", 8)
    world.check("slots.student.init=teachers/old.safetensors")


def test_a_bug_of_a_plugin_is_no_mistake_in_the_manifest(world: Any) -> None:
    class Broken(Catalogue):
        def find(self, kind: Any, name: str) -> Any:
            raise ValueError("a bug")

    path = world.write()
    with pytest.raises(ValueError, match="a bug") as caught:
        check_manifest(str(path), catalogue=Broken(world.catalogue.plugins))
    assert not isinstance(caught.value, ManifestError)


def test_shift_auto_needs_a_base_with_a_rule(world: Any) -> None:
    assert "sampler.shift: the base tiny has no rule for its shift; give a number, such as 3.0" in message(
        world, "sampler.shift=auto"
    )
    assert "targets.shift: the base tiny has no rule" in message(world, "targets={from: teacher, shift: auto}")


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 200_000, b"[]"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(text)
    with pytest.raises(ManifestError, match=r"base model: .*/tokenizer\.json is no tokenizer .*fetch it again"):
        prompts._tokenizer(tmp_path / "tokenizer.json")


def test_a_prompt_longer_than_the_encoder_takes_is_told(
    world: Any, catalogue_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = world.check()
    base = replace(checked.description, prompt_tokens=3, tokenizer=Path(__file__))
    told = {"manga": Prompts("one two three", "one two three four", "", "one")}
    with pytest.raises(ManifestError, match="effect 'manga': its prompt has 4 tokens, and the encoder takes 3"):
        prompts._must_fit(told, base, str.split)  # type: ignore[arg-type]
    assert prompts._must_fit(told, replace(base, prompt_tokens=4), str.split) == told  # type: ignore[arg-type]
