"""``cldistill generate``: all pictures with all effects, file names, the sheet, and what is refused before the work."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.collection.collection import Collection
from cldistill.errors import CldistillError, CollectionError, DataError
from cldistill.runner import generate_command
from cldistill.testing import picture
from cldistill_plugins.generation.job import Edit, cells


def generate(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["generate", *map(str, words), "--device", "cpu"])


def refused(*words: object) -> str:
    done = generate(*words)
    assert isinstance(done.exception, CldistillError), done.output
    return str(done.exception)


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The collections that were loaded, as the command loads them."""
    seen: list[Path] = []
    load = Collection.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Collection], path: Path, *rest: Any, **options: Any) -> Collection:
        seen.append(path)
        return cast(Collection, load(cls, path, *rest, **options))

    monkeypatch.setattr(Collection, "load", classmethod(counted))
    return seen


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collection, "load", lambda *args, **options: pytest.fail("loaded a model"))


@pytest.mark.slow
def test_a_folder_with_two_effects_is_four_pictures_and_a_sheet_by_one_model(
    collection: Path, photos: Path, tmp_path: Path, loads: list[Path]
) -> None:
    out = tmp_path / "out"
    done = generate(collection, "-i", photos, "-e", "soften", "-e", "invert", "-o", out, "--seed", 3, "--steps", 2)
    assert done.exit_code == 0, done.output
    names = ["cat--soften.png", "cat--invert.png", "dog--soften.png", "dog--invert.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "contact-sheet.png"])
    assert done.stdout.splitlines() == [
        *(str(out / name) for name in names),
        f"contact sheet: {out / 'contact-sheet.png'}",
    ]
    assert loads == [collection]
    one = Collection.load(collection, device="cpu")
    for name in names:
        source, effect = name.removesuffix(".png").split("--")
        (path,) = photos.glob(f"{source}.*")
        assert np.array_equal(pixels(out / name), one.generate(path, effect, seed=3, steps=2)), name
    with Image.open(out / "contact-sheet.png") as sheet:
        # Labels at the left, then the source and two effects of 192 pixels with gaps of 8, and two rows under a heading.
        assert sheet.width > 3 * 200 and 2 * 200 < sheet.height < 3 * 200


def test_the_sheet_shows_the_source_and_then_each_effect(collection: Path, tmp_path: Path) -> None:
    Image.new("RGB", (24, 24), (200, 30, 30)).save(tmp_path / "red.png")
    out = tmp_path / "out"
    out.mkdir()
    Image.new("RGB", (24, 24), (30, 200, 30)).save(out / "red--soften.png")
    Image.new("RGB", (24, 24), (30, 30, 200)).save(out / "red--invert.png")
    done = generate(
        collection, "-i", tmp_path / "red.png", "-e", "soften", "-e", "invert", "-o", out, "--existing", "skip"
    )
    assert done.exit_code == 0, done.output
    assert "2 of 2 pictures are there already" in done.stdout
    sheet = pixels(out / "contact-sheet.png").astype(int)
    places = [np.argwhere((abs(sheet - colour) < 3).all(axis=-1)) for colour in
              ((200, 30, 30), (30, 200, 30), (30, 30, 200))]  # fmt: skip
    assert [len(place) for place in places] == [192 * 192] * 3
    lefts = [int(place[:, 1].min()) for place in places]
    assert lefts == [lefts[0], lefts[0] + 200, lefts[0] + 400]


def test_one_picture_with_one_effect_is_one_file(collection: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.jpg"
    done = generate(collection, "-i", photos / "cat.png", "-e", "soften", "-o", out)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(out)]
    assert Image.open(out).format == "JPEG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.jpg", "photos"]


def test_effects_with_a_plus_are_applied_in_order_and_references_are_looked_at(
    collection: Path, photos: Path, tmp_path: Path
) -> None:
    cat, dog = photos / "cat.png", photos / "dog.jpg"
    words = ["-i", cat, "-e", "soften+invert", "--reference", dog, "--steps", 2]
    done = generate(collection, *words, "-o", tmp_path / "both.png")
    assert done.exit_code == 0, done.output
    one, made = Collection.load(collection, device="cpu"), pixels(tmp_path / "both.png")
    assert np.array_equal(made, one.generate([dog, cat], ["soften", "invert"], steps=2))
    assert not np.array_equal(made, one.generate([dog, cat], ["invert", "soften"], steps=2))
    assert not np.array_equal(made, one.generate(cat, ["soften", "invert"], steps=2))


def test_all_takes_every_effect_once(collection: Path, photos: Path, tmp_path: Path) -> None:
    words = ["-i", photos / "cat.png", "-e", "soften", "--all", "--steps", 1, "--no-sheet"]
    assert generate(collection, *words, "-o", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cat--invert.png", "cat--soften.png"]


def test_pictures_of_one_name_are_told_apart(collection: Path, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    picture(5, (24, 24)).save(other / "CAT.png")
    words = ["-i", photos, "-i", other, "-i", photos / "cat.png", "-e", "soften", "--steps", 1]
    assert generate(collection, *words, "-o", tmp_path / "out").exit_code == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*--*"))
    assert names == ["CAT-2--soften.png", "cat--soften.png", "dog--soften.png"]


def test_more_pictures_than_fit_on_a_sheet_make_several(
    collection: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cldistill_plugins.generation.sheet.ROWS", 1)
    assert generate(collection, "-i", photos, "-e", "soften", "--steps", 1, "-o", tmp_path / "out").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("contact*")} == {"contact-sheet-1.png", "contact-sheet-2.png"}


@pytest.mark.slow
def test_nothing_is_overwritten_unless_it_is_asked_for(
    collection: Path, photos: Path, tmp_path: Path, loads: list[Path]
) -> None:
    out = tmp_path / "out"
    words = [collection, "-i", photos, "-e", "soften", "-o", out, "--steps", 1]
    assert generate(*words).exit_code == 0
    (out / "cat--soften.png").write_bytes(b"mine")
    message = refused(*words)
    for said in (str(out / "cat--soften.png"), "there already", "--existing skip", "--existing overwrite"):
        assert said in message
    assert len(loads) == 1
    assert (out / "cat--soften.png").read_bytes() == b"mine"
    assert generate(*words, "--existing", "overwrite").exit_code == 0
    assert Image.open(out / "cat--soften.png").format == "PNG"
    (out / "dog--soften.png").unlink()
    before = (out / "cat--soften.png").stat().st_mtime_ns
    done = generate(*words, "--existing", "skip")
    assert done.exit_code == 0 and (out / "dog--soften.png").is_file()
    assert (out / "cat--soften.png").stat().st_mtime_ns == before
    assert done.stdout.splitlines()[1:] == [str(out / "dog--soften.png"), f"contact sheet: {out / 'contact-sheet.png'}"]


@pytest.mark.slow
def test_a_split_mounts_each_of_its_collections_once(
    collection: Path, photos: Path, tmp_path: Path, loads: list[Path]
) -> None:
    split = tmp_path / "split"
    groups = [{"name": name, "collection": f"{name}/collection", "effects": [name]} for name in ("invert", "soften")]
    for group in groups:
        shutil.copytree(collection, split / str(group["collection"]))
    (split / "groups.json").write_text(json.dumps({"groups": groups}))
    words = ["-i", photos, "-e", "invert", "-e", "soften", "--steps", 1, "-o", tmp_path / "out"]
    assert generate(split, *words).exit_code == 0
    assert [path.parent.name for path in loads] == ["invert", "soften"]
    assert len(list((tmp_path / "out").glob("*--*"))) == 4
    assert "lie in 2 collections" in refused(split, "-i", photos, "-e", "invert+soften")


@pytest.mark.parametrize("name", ["../../victim", "/etc/victim", "a\\b", "..", "x\ny", "猫 \u202e"])
def test_a_name_of_a_stranger_stays_in_the_folder(name: str) -> None:
    (cell,) = cells([Path("photos/cat.png")], [Edit((name,), Path("collection"))], Path("out"))
    assert cell.output.parent == Path("out") and cell.output.name.startswith("cat--")
    assert not set("/\\\n \u202e") & set(cell.output.name)


@pytest.mark.parametrize("seed", [2**64, 2**65, -(2**63) - 1])
def test_a_seed_that_no_generator_takes_is_refused_by_its_option(seed: int) -> None:
    done = generate("collection", "-i", "cat.png", "-e", "soften", "--seed", seed)
    assert done.exit_code == 2 and "'--seed'" in done.output


@pytest.mark.parametrize("name", ["out", "out.pgn", "out.txt", "out.psd"])
@pytest.mark.slow
def test_a_name_that_no_picture_can_have_is_refused_before_the_work(
    name: str, collection: Path, photos: Path, tmp_path: Path, no_model: None
) -> None:
    done = generate(collection, "-i", photos / "cat.png", "-e", "soften", "-o", tmp_path / name)
    assert done.exit_code == 2
    assert ".webp" in done.output  # the box around it wraps the sentence somewhere


def test_what_is_wrong_is_said_before_a_model_is_loaded(
    collection: Path, photos: Path, tmp_path: Path, no_model: None
) -> None:
    assert "did you mean 'soften'" in refused(collection, "-i", photos, "-e", "softn")
    assert "has: invert, soften" in refused(collection, "-i", photos)
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n")
    done = generate(collection, "-i", photos, "-e", "soften")
    assert isinstance(done.exception, DataError) and "broken.png" in str(done.exception)
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refused(collection, "-i", tmp_path / "empty", "-e", "soften")
    done = generate(collection, "-i", photos / "cat.png", "--all", "-o", tmp_path / "one.png")
    assert done.exit_code == 2 and "name a folder" in " ".join(done.output.replace("│", " ").split())
    for words in (
        ("-e", "soften", "-o", "/proc/out.png"),
        ("--all", "-o", "/proc/out"),
    ):  # root, too, makes nothing there
        assert isinstance(generate(collection, "-i", photos / "cat.png", *words).exception, OSError)
    done = generate(tmp_path / "nowhere", "-i", photos, "-e", "soften")
    assert isinstance(done.exception, CollectionError) and "no such collection" in str(done.exception)


def test_the_printed_command_works_as_it_is_copied(collection: Path, photos: Path, tmp_path: Path) -> None:
    settings = SimpleNamespace(model="Qwen/Qwen-Image-Edit-2509")
    run = SimpleNamespace(effects=[SimpleNamespace(name="soften")])
    manifest = SimpleNamespace(evaluate=None, samples=SimpleNamespace(images=photos))
    checked = SimpleNamespace(base=SimpleNamespace(settings=settings), manifest=manifest, items={}, settled_prompts={})
    exported = SimpleNamespace(collection=collection, checked=checked)
    words = shlex.split(generate_command(cast(Any, run), cast(Any, exported)))
    assert words[:2] == ["cldistill", "generate"] and "--base" not in words
    assert Path(words[words.index("--image") + 1]).parent == photos
    words[words.index("out.png")] = str(tmp_path / "made.png")
    assert generate(*words[2:], "--steps", 1).exit_code == 0
    settings.model = str(tmp_path)  # a local base, which no collection names, is given
    words = shlex.split(generate_command(cast(Any, run), cast(Any, exported)))
    assert words[words.index("--base") + 1] == str(tmp_path)
