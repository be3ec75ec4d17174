"""Preparation: pictures of every shape, prompts of their own, nothing left to encode once training has begun, stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageOps
from rich.console import Console

from cldistill import runner
from cldistill.assemble import assemble
from cldistill.data.dataset import Dataset
from cldistill.data.items import item_prompts
from cldistill.errors import DataError, ManifestError, Stopped
from cldistill.manifest.check import check_manifest
from cldistill.prepare import Preparation
from cldistill.random import KeyedRandom
from cldistill.records import EffectInfo, Item, Prompts, Route
from cldistill.samples import RunSampler, teacher_and_student
from cldistill.schedule import Schedule
from cldistill.storage.headers import read_tensors_header
from cldistill.testing import catalogue_with, picture, run_manifest
from cldistill.testing.pictures import write_general, write_pictures
from cldistill.testing.runs import tiny_manifest
from cldistill.testing.tiny_base import TinyBase
from cldistill.training.run import Run
from cldistill_plugins.evaluation import plugin as evaluation
from cldistill_plugins.planning.plan import make_plan
from cldistill_plugins.samples import plugin as samples

WIDE, TALL = (40, 20), (20, 40)


def write_manifest(folder: Path, **parts: Any) -> Path:
    """Write the kit's manifest, as JSON (which is YAML)."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "manifest.yaml"
    file.write_text(json.dumps(tiny_manifest(folder, **parts)))
    return file


def build(folder: Path, **parts: Any) -> Run:
    """Assemble the kit's run."""
    checked = check_manifest(str(write_manifest(folder, **parts)), catalogue=catalogue_with())
    return assemble(checked, folder / "run")


def mixed_pairs(folder: Path) -> Path:
    """Write a JSONL of portrait, landscape and square pairs, one of them with two references."""
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for index, size in enumerate([WIDE, TALL, (24, 24)] * 2):
        before = picture(index, size)
        before.save(folder / f"{index}.png")
        ImageOps.invert(before).save(folder / f"{index}-after.png")
        lines.append({"source": f"{index}.png", "target": f"{index}-after.png"})
    lines.append({"source": ["0.png", "1.png"], "target": "0-after.png"})
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return file


def mixed_parts(folder: Path) -> dict[str, Any]:
    """Return the parts of a manifest whose data, grids and evaluation show pictures of several shapes."""
    pairs = mixed_pairs(folder / "mixed")
    effects = [
        {"name": name, "prompt": f"{name} it", "teacher": {"use": "tiny-teacher"}, "pairs": str(pairs)}
        for name in ("invert", "soften")
    ]
    held_out = folder / "held-out"
    held_out.mkdir()
    for index, size in enumerate([WIDE, TALL, (24, 24)]):
        picture(50 + index, size).save(held_out / f"{index}.png")
    general = write_general(folder / "held-out-general")
    picture(60, TALL).save(folder / "held-out-general" / "000.png")
    for name in ("000.png", "001.png"):
        (folder / name).write_bytes((folder / "held-out-general" / name).read_bytes())
    general.write_text('{"image": "000.png", "instruction": "a"}\n{"image": "001.png", "instruction": "b"}\n')
    return {
        "effects": effects,
        "samples": {"every": 3, "images": str(held_out)},
        "evaluate": {"images": str(held_out), "pictures": 2, "teacher_steps": 2, "general": str(general)},
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("base", [{}, {"layout": "image"}])
def test_a_run_takes_portrait_landscape_and_several_references(tmp_path: Path, size: int, base: dict[str, Any]) -> None:
    train = {"generator_steps": 6, "batch_size": size, "checkpoint_every": 6, "device": "cpu"}
    whole = {"train": train, "base": {"use": "tiny-base", "options": base}, **mixed_parts(tmp_path)}
    done = run_manifest(tmp_path, catalogue_with(evaluation, samples), steps=6, **whole)
    assert len(done.losses("tiny-flow")) == 6
    assert done.collection is not None
    assert {"step-000003.png", "step-000006.png"} == {p.name for p in (tmp_path / "run/samples").iterdir()}
    assert (tmp_path / "run/result.png").is_file()


@pytest.mark.slow
def test_a_run_of_the_real_family_takes_both_orientations(tiny_manifest: Any, tmp_path: Path) -> None:
    """At batch size 2, through pairs training, targets, every loss of the method, and a grid."""
    pairs, held_out = mixed_pairs(tmp_path / "mixed"), write_pictures(tmp_path / "held-out", 1, WIDE)
    picture(9, TALL).save(held_out / "tall.png")
    teacher = {"use": "from-pairs", "options": {"steps": 3, "rank": 2, "lr": 1e-3, "batch_size": 2}}
    effects = [{"name": n, "prompt": n, "teacher": teacher, "pairs": str(pairs)} for n in ("darker", "mirror")]
    checked = check_manifest(str(tiny_manifest(effects=effects)))
    run = assemble(checked, tmp_path / "out")
    drawn = set()
    for step in range(12):
        batch = run.dataset.draw(Route("effect", {"darker": 1.0}), KeyedRandom(step), 2)
        shapes = batch.student.source["shapes"]
        assert torch.equal(shapes[0], shapes[1])
        drawn.add(tuple(shapes[0].flatten().tolist()))
    assert len(drawn) >= 3
    runner.train(run)
    studio, shop = RunSampler(run, run.preparation.encoder), run.prompts["darker"]
    rows = [(Item(p.stem, "darker", (p,), "darker"), shop) for p in sorted(held_out.iterdir())]
    sizes = {studio.pictures(system, rows)[i].size for system in teacher_and_student(run, 2) for i in range(2)}
    assert sizes == {(96, 32), (32, 96)}


@pytest.mark.slow
def test_a_teacher_that_nothing_asks_is_not_trained(tiny_manifest: Any, own_cache: Path, tmp_path: Path) -> None:
    """Flow matching on after-pictures asks no teacher; a grid that shows one effect asks that one's."""
    pairs_alone = {
        "losses": [{"use": "ta-fm", "streams": ["mixed"]}], "targets": {"from": "pair"},
        "router": {"use": "pdsr", "options": {"mixed_until": 6}},
        "slots": {"student": {"rank": 2, "lr": 1e-3}},
        "samples": {"images": str(write_pictures(tmp_path / "held-out", 1)), "every": 3, "effects": ["darker"]},
    }  # fmt: skip
    checked = check_manifest(str(tiny_manifest(**pairs_alone)))
    assert checked.needless_teachers == {"mirror"}
    assert [effect.teacher for effect in make_plan(checked).effects] == [
        "from-pairs", "from-pairs, not trained: no loss, target or picture of this run asks for it",
    ]  # fmt: skip
    done = runner.execute(checked, tmp_path / "run", Console(quiet=True), "again")
    assert len(list((own_cache / "pairs").glob("*/teacher.safetensors"))) == 1
    assert done.collection is not None
    with (done.collection / "pytorch_lora_weights.safetensors").open("rb") as file:
        assert list(json.loads(read_tensors_header(file).metadata["cldistill.teachers"])) == ["darker"]


@pytest.mark.parametrize(
    ("changed", "needless"),
    [
        ({}, set()),
        ({"targets": {"from": "pair"}}, set()),  # both DMD losses compare with the teacher
        ({"losses": [{"use": "ta-fm", "streams": ["mixed"]}]}, set()),  # targets are its samples
        ({"losses": [{"use": "ta-fm", "streams": ["mixed"]}], "targets": {"from": "pair"}}, {"darker", "mirror"}),
    ],
)  # fmt: skip
def test_losses_and_targets_ask_for_teachers(tiny_manifest: Any, changed: dict[str, Any], needless: set[str]) -> None:
    alone = {"slots": {"student": {"rank": 2, "lr": 1e-3}}, "router": {"use": "pdsr", "options": {"mixed_until": 6}}}
    whole = tiny_manifest(**(changed | (alone if "losses" in changed else {})))
    assert check_manifest(str(whole)).needless_teachers == needless


def test_a_mixed_batch_is_filled_from_the_routes_own_pools(tmp_path: Path) -> None:
    run = build(tmp_path)
    shown = {name: list(run.dataset.pools[name]) for name in ("invert", "soften", "general")}
    odd = [replace(example, batch_key=(9, 9)) for example in shown["invert"]]
    same = [replace(example, batch_key=(9, 9)) for example in shown["general"]]
    dataset = Dataset(run.base, {**shown, "invert": odd, "general": same})
    route = Route("mixed", {"invert": 0.5, "soften": 0.5})
    pools = {item.pool for step in range(20) for item in dataset.draw(route, KeyedRandom(step), 3).items}
    assert pools == {"invert", "soften"}


@pytest.mark.slow
def test_no_encoder_comes_back_once_the_run_is_assembled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[bool] = []
    assembled = False
    load, put_together = TinyBase._text_encoder, runner.assemble

    def watched(base: TinyBase) -> Any:
        loads.append(assembled)
        return load(base)

    def then(*args: Any, **kwargs: Any) -> Run:
        nonlocal assembled
        run = put_together(*args, **kwargs)
        assert run.base._table is None  # type: ignore[attr-defined]
        assembled = True
        return run

    monkeypatch.setattr(TinyBase, "_text_encoder", watched)
    monkeypatch.setattr(runner, "assemble", then)
    base = {"use": "tiny-base", "options": {"target_guidance_scale": 2.0}}
    done = run_manifest(tmp_path, catalogue_with(evaluation, samples), steps=6, base=base, **mixed_parts(tmp_path))
    assert done.collection is not None and (tmp_path / "run/report.json").is_file()
    assert loads and not any(loads)


def test_a_pair_tells_its_own_prompt_to_the_teacher_alone(tmp_path: Path) -> None:
    effect, prompts = EffectInfo("invert", "shared"), Prompts("<t> caption", "as the isolator says", "", "<t>")
    common = Item("a", "invert", (Path("a.png"),), "shared")
    assert item_prompts(common, effect, prompts) == prompts
    own = item_prompts(replace(common, prompt="own words"), effect, prompts)
    assert own == Prompts("<t> caption", "own words", "", "<t>")

    parts = mixed_parts(tmp_path)
    pairs = Path(parts["effects"][0]["pairs"])
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    pairs.write_text("\n".join(json.dumps({**row, "prompt": f"own {i}"}) for i, row in enumerate(rows[:2])))
    run = build(tmp_path, **parts)
    encoder = run.preparation.encoder
    for index, example in enumerate(run.dataset.pools["invert"]):
        told = encoder.prompt(example.item, f"own {index}")["embeds"]
        assert torch.equal(example.teacher()["embeds"], told)
        assert torch.equal(
            example.student()["embeds"], encoder.prompt(example.item, run.prompts["invert"].student)["embeds"]
        )


def test_an_effect_may_have_another_aim_than_the_others(tmp_path: Path) -> None:
    """With ``from: pair`` one effect is taught by its teacher: it has no after-pictures, and needs none."""
    pairs = mixed_pairs(tmp_path / "mixed")
    lone = write_pictures(tmp_path / "lone", 2)
    effects = [
        {"name": "invert", "prompt": "invert it", "teacher": {"use": "tiny-teacher"}, "pairs": str(pairs)},
        {"name": "soften", "prompt": "soften it", "teacher": {"use": "tiny-teacher"}, "pairs": str(lone)},
    ]  # fmt: skip
    parts: dict[str, Any] = {"effects": effects, "targets": {"from": "pair", "steps": 3}}
    with pytest.raises(ManifestError, match=r"effects.1.pairs.*after-pictures, which targets: \{from: pair\} needs"):
        build(tmp_path, **parts)
    effects[1]["targets"] = "teacher"
    run = build(tmp_path, **parts)
    encoder = run.preparation.encoder
    for example in run.dataset.pools["invert"]:
        assert example.target is not None
        assert torch.equal(example.target(), encoder.pair_target(example.item))
    sampler, digest = run.preparation.sampler, run.teachers.digest("soften")
    assert digest is not None
    for example in run.dataset.pools["soften"]:
        key = sampler.key(example, run.prompts["soften"], digest)
        assert example.target is not None
        assert torch.equal(example.target(), sampler.with_target(example, key).target())  # type: ignore[misc]

    effects[0]["targets"], parts["targets"] = "pair", {"from": "teacher", "steps": 3}  # the other way about
    again = build(tmp_path, **parts)
    for before, after in zip(run.dataset.pools["invert"], again.dataset.pools["invert"], strict=True):
        assert torch.equal(before.target(), after.target())  # type: ignore[misc]


def test_the_key_of_a_target_has_all_that_it_depends_on(tmp_path: Path) -> None:
    run = build(tmp_path)
    shop: Preparation = run.preparation
    example = run.dataset.pools["invert"][0]

    def key(prompts: Prompts, **sampler: Any) -> str:
        return replace(shop.sampler, **sampler).key(example, prompts, "digest")

    plain, other = Prompts("s", "t", "blurry"), Prompts("s", "t", "ugly")
    assert key(plain) == key(other) == key(replace(plain, student="x"))
    assert key(plain) != key(replace(plain, teacher="x"))
    assert key(plain) != key(plain, schedule=replace(shop.sampler.schedule, shift=7.0))
    run.base.target_guidance_scale = 2.0
    assert key(plain) != key(other)


@pytest.mark.slow
def test_teachers_may_have_a_shift_of_their_own(tmp_path: Path) -> None:
    shifts = {}
    for name, targets in (
        ("own", {"from": "teacher", "steps": 2, "shift": 1.5}),
        ("same", {"from": "teacher", "steps": 2}),
    ):
        run = build(tmp_path / name, targets=targets, sampler={"steps": 4, "shift": 5.0})
        shifts[name] = (run.preparation.sampler.schedule.shift, run.teacher_schedule(3).shift, run.schedule.shift)
    assert shifts == {"own": (1.5, 1.5, 5.0), "same": (5.0, 5.0, 5.0)}

    run = build(
        tmp_path / "own", targets={"from": "teacher", "steps": 2, "shift": 1.5}, sampler={"steps": 4, "shift": 5.0}
    )
    studio = RunSampler(run, run.preparation.encoder)
    rows = [(example.item, run.prompts["invert"]) for example in run.dataset.pools["invert"]]
    teacher, student = teacher_and_student(run, 3)
    before = [studio.pictures(system, rows[:1])[0].tobytes() for system in (teacher, student)]
    run.teacher_schedule = lambda steps: Schedule(steps, 5.0)
    after = [studio.pictures(system, rows[:1])[0].tobytes() for system in (teacher, student)]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_target_that_leaves_the_cache_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    run = build(tmp_path)
    example = run.dataset.pools["invert"][0]
    cache = run.preparation.encoder.cache
    assert example.target is not None
    example.target()
    cache._memory.clear()
    for path in cache.root.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"target of invert/000 has left the cache.*run the same command again"):
        example.target()


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-3], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1])], ids=["cut", "bit"]
)
def test_a_damaged_target_is_sampled_again_before_training(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    run = build(tmp_path)
    target = run.dataset.pools["invert"][0].target
    assert target is not None
    whole = target()
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.write_bytes(damage(path.read_bytes()))
    again = build(tmp_path).dataset.pools["invert"][0].target
    assert again is not None and torch.equal(again(), whole)


@pytest.mark.slow
@pytest.mark.parametrize(("after", "doing"), [(0, "encoding"), (9, "encoding"), (12, "sampling")])
def test_a_stop_while_preparing_keeps_what_is_done(tmp_path: Path, after: int, doing: str, own_cache: Path) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    checked = check_manifest(str(write_manifest(tmp_path)), catalogue=catalogue_with())
    with pytest.raises(Stopped, match=rf"stopped while {doing}.*the same command goes on"):
        assemble(checked, tmp_path / "run", stop=stop)
    kept = {path: path.read_bytes() for path in own_cache.rglob("*.safetensors")}
    assert len(kept) >= 3 * after
    run = assemble(checked, tmp_path / "run")
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(kept) < len(list(own_cache.rglob("*.safetensors")))
    assert run.dataset.pools
