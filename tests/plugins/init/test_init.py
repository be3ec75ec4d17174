"""`cldistill init`: what it writes passes `check`, is what was found, and overwrites nothing unasked."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import cldistill_plugins.effectbench as effectbench
from cldistill.cli.main import app
from cldistill.errors import CONTROL, DataError, ManifestError, OptionsError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.load import RECIPES, recipes
from cldistill.testing.pictures import picture, write_pairs
from cldistill_plugins.init.found import find_effects
from cldistill_plugins.init.text import plain

SHIPPED = Path(effectbench.__file__).parent
HALFTONE = ("--prompt", "halftone=print it as a halftone")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of pairs, of which one has a LoRA elsewhere, and pictures without an effect."""
    monkeypatch.chdir(tmp_path)
    for name in ("sepia", "halftone"):
        write_pairs(tmp_path / "pairs" / name)
    (tmp_path / "loras").mkdir()
    shutil.copy(SHIPPED / "teachers" / "halftone.safetensors", tmp_path / "loras")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture(number).resize((32, 32)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


def init(*words: str) -> str:
    done = CliRunner().invoke(app, ["init", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_loras_and_pairs_of_one_name_are_one_effect(folder: Path) -> None:
    found = {effect.name: effect for effect in find_effects([Path("loras"), Path("pairs")])}
    assert list(found) == ["halftone", "sepia"]
    assert found["halftone"].teacher == folder / "loras" / "halftone.safetensors"
    assert found["halftone"].pairs == folder / "pairs" / "halftone"
    assert (found["sepia"].teacher, found["sepia"].pairs) == (None, folder / "pairs" / "sepia")


def test_pairs_become_a_commented_manifest_that_passes_check(folder: Path) -> None:
    told = init("pairs", "--prompt", "sepia=make it: #sepia", *HALFTONE, "-o", "mine.yaml", "--held-out", "photos")
    text = (folder / "mine.yaml").read_text()
    assert "cldistill check mine.yaml" in told
    assert text.count("#") > 15
    checked = check_manifest("mine.yaml")
    assert checked.manifest.name == "mine"
    assert {effect.name: effect.prompt for effect in checked.effects} == {
        "halftone": "print it as a halftone", "sepia": "make it: #sepia",
    }  # fmt: skip
    assert [part.name for part in checked.teachers.values() if part] == ["from-pairs", "from-pairs"]
    assert checked.streams == ("effect",)
    assert checked.manifest.evaluate is not None
    assert checked.manifest.evaluate.images == folder / "photos"
    assert checked.manifest.train.gradient_checkpointing
    assert yaml.safe_load(text)["effects"][1]["pairs"] == "pairs/sepia"


@pytest.mark.slow
def test_a_miniature_has_the_settings_that_work_there(folder: Path) -> None:
    init("pairs", "loras", "--miniature", "--prompt", "sepia=make it sepia", *HALFTONE, "-o", "small.yaml")
    checked = check_manifest("small.yaml")
    options = checked.base.settings.model_dump()
    assert (options["dtype"], options["guidance_scale"], options["target_guidance_scale"]) == ("float32", 1.0, 1.0)
    assert (options["resolution"], options["vl_resolution"]) == (128, 56)
    assert not checked.manifest.train.gradient_checkpointing
    assert {name: part.name for name, part in checked.teachers.items() if part} == {
        "halftone": "lora-file", "sepia": "from-pairs",
    }  # fmt: skip
    assert str(checked.teacher_fits["halftone"]).startswith("56/56 modules")
    assert len(checked.items["general"]) > 100


@pytest.mark.slow
def test_a_miniature_needs_nothing(folder: Path) -> None:
    init("--miniature", "--name", "demo")
    assert {effect.name for effect in check_manifest("demo.yaml").effects} == {"halftone", "crimson-oil"}


@pytest.mark.slow
def test_a_miniature_trains_as_it_was_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its phases, in a few steps: a picture, a score and a command that works come out."""
    monkeypatch.setenv("CLDISTILL_CACHE", str(folder / "cache"))
    init("--miniature", "--name", "demo")
    text = (folder / "demo.yaml").read_text()
    for old, new in (("420", "2"), ("generator_steps: 460", "generator_steps: 3"), ("warmup: 20", "warmup: 0"),
                     ("steps: 40", "steps: 2"), ("pictures: 8", "pictures: 1"), ("every: 210", "every: 2"),
                     ("batch_size: 8", "batch_size: 1")):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (folder / "demo.yaml").write_text(text)
    sets = ("evaluate.teacher_steps=2", "evaluate.pairs=1", "base.options.resolution=64")
    done = CliRunner().invoke(app, ["run", "demo.yaml", *(word for value in sets for word in ("--set", value))])
    assert done.exit_code == 0, done.output
    assert (folder / "runs/demo/result.png").is_file() and "likeness to its own LoRA" in done.output
    told = done.output[done.output.index("generate runs") :].split()
    assert CliRunner().invoke(app, [*told[: told.index("out.png") + 1], "--device", "cpu"]).exit_code == 0
    assert (folder / "out.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_is_copied_as_it_is(recipe: str, folder: Path) -> None:
    from importlib.resources import files

    init("--recipe", recipe)
    assert (folder / f"{recipe}.yaml").read_text() == files(RECIPES).joinpath(f"{recipe}.yaml").read_text()


@pytest.mark.slow
def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    (folder / "demo.yaml").write_text("mine")
    with pytest.raises(OptionsError, match=r"demo\.yaml is there already; --force overwrites it"):
        init("--miniature", "-o", "demo.yaml")
    assert (folder / "demo.yaml").read_text() == "mine"
    init("--miniature", "-o", "demo.yaml", "--force")
    assert check_manifest("demo.yaml").manifest.name == "demo"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "init: name LoRAs, folders of pairs"),
        (("pairs",), "halftone: nothing says with which prompt it was trained; give --prompt halftone="),
        (("loras", *HALFTONE), "halftone: a LoRA without pairs needs pictures to edit; give --pictures FOLDER"),
        (("pairs", "--prompt", "sepa=x"), "no effect is called 'sepa'; did you mean 'sepia'?"),
        (("--recipe", "one-efect"), "there is no such recipe; did you mean 'one-effect'?"),
        (("photos",), "photos: holds neither a LoRA (.safetensors) nor pairs"),
        (("gone",), "no such file or folder"),
        (("pairs/sepia", "--prompt", "sepa=x"), "no effect is called 'sepa'; did you mean 'sepia'?"),
        (("pairs/sepia", "--prompt", "x", "-o", "no/where.yaml"), "no: no such folder"),
        (("pairs/sepia", "--prompt", "x", "--general", "photos"), "`cldistill instructions photos` writes one"),
        (("pairs/sepia", "--prompt", "x", "--held-out", "pairs"), "--held-out pairs: holds no pictures"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(words: tuple[str, ...], expected: str, folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises((OptionsError, DataError)) as caught:
        init(*words)
    assert expected in str(caught.value)
    assert sorted(folder.iterdir()) == before


def test_a_lora_of_another_base_is_told_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(ManifestError, match="nothing was written") as caught:
        init("loras", "--pictures", "photos", *HALFTONE, "-o", "mine.yaml")
    assert "mine.yaml:" in str(caught.value)
    assert not (folder / "mine.yaml").exists()


def test_prompts_that_lie_beside_the_pairs_are_taken(folder: Path) -> None:
    (folder / "pairs/sepia/effect.json").write_text(json.dumps({"name": "old-photo", "prompt": "turn it old"}))
    rows = [{"source": f"source/{path.name}", "target": f"target/{path.name}", "prompt": "dots"}
            for path in (folder / "pairs/halftone/source").iterdir()]  # fmt: skip
    (folder / "pairs/halftone/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    init("pairs/sepia", "pairs/halftone/rows.jsonl", "-o", "mine.yaml")
    assert {e.name: e.prompt for e in check_manifest("mine.yaml").effects} == {
        "old-photo": "turn it old",
        "rows": "dots",
    }


VALUES = ("yes", "a: b", "#x", "- x", "", "a #b", 'say "hi"', "null", "Ünicode", "12", "x,y", "a'b", "a\nb: c")


@pytest.mark.parametrize("value", [*VALUES, "a\x85b\u2028c\u202ed"])
def test_scalars_are_read_back_as_they_were(value: str) -> None:
    assert yaml.safe_load(f"key: {plain(value, Path('/'))}") == {"key": value}


def test_names_on_the_disk_are_shown_and_written_as_names(folder: Path) -> None:
    odd = folder / "odd \u2028\x1b[31m"
    odd.mkdir()
    for path in sorted((folder / "pairs/sepia/source").iterdir()):
        for side in ("source", "target"):
            shutil.copy(folder / "pairs/sepia" / side / path.name, odd / f"{side}-{path.name}")
    rows = [{"source": path.name, "target": path.name.replace("source-", "target-"), "prompt": "x"}
            for path in odd.glob("source-*")]  # fmt: skip
    (odd / "x\nrequires: [nothing]  #.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = CliRunner().invoke(app, ["init", str(odd), "-o", "mine.yaml"], color=True)
    assert not CONTROL.search(shown.output) and r"\u2028" in shown.output
    assert isinstance(shown.exception, ManifestError) and "U+001B" in str(shown.exception)  # no path of a manifest
    odd.rename(folder / "odd \u2028")
    init("odd \u2028", "-o", "mine.yaml")
    checked = check_manifest("mine.yaml")
    assert checked.manifest.requires == () and checked.effects[0].pairs == folder / "odd \u2028"


@pytest.mark.slow
def test_it_asks_in_a_terminal(folder: Path) -> None:
    """Answers typed into a real terminal: paths, the run's name, the prompts, no general pictures."""
    main, side = pty.openpty()
    words = [sys.executable, "-m", "cldistill", "init"]
    with subprocess.Popen(words, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        os.write(main, b"pairs\nasked\nprint it as a halftone\nmake it sepia\nn\n")
        told: Any = process.communicate(timeout=120)[0]
    os.close(main)
    os.close(side)
    assert process.returncode == 0, told
    assert "Where do your LoRAs or pairs lie?" in told
    assert [effect.prompt for effect in check_manifest("asked.yaml").effects] == [
        "print it as a halftone",
        "make it sepia",
    ]


@pytest.mark.slow
def test_pairs_in_other_layouts_are_found_and_a_folder_of_befores_is_shown(folder: Path) -> None:
    ends = folder / "odd" / "gold leaf"
    ends.mkdir(parents=True)
    for number in range(2):
        picture(number).save(ends / f"{number}_before.png")
        picture(number).save(ends / f"{number}_after.png")
        (ends / f"{number}.txt").write_text("gild it")
    shutil.copytree(folder / "pairs/sepia", folder / "odd/sepia")
    (folder / "odd/sepia/source").rename(folder / "odd/sepia/Input")
    (folder / "odd/sepia/target").rename(folder / "odd/sepia/Output")
    (folder / "odd/._sepia").write_bytes(b"\0")
    found = {effect.name: effect for effect in find_effects([folder / "odd"])}
    assert found["gold-leaf"].told.startswith("2 pairs by names that end in _before and _after, 2 with captions in ")
    assert found["sepia"].befores == folder / "odd/sepia/Input"
    init("odd", "--prompt", "sepia=make it sepia", "--miniature", "-o", "odd.yaml")
    checked = check_manifest("odd.yaml")
    assert {effect.name: effect.prompt for effect in checked.effects} == {
        "gold-leaf": "gild it",
        "sepia": "make it sepia",
    }
