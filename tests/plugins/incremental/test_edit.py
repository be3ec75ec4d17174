"""Removing and renaming: all four places of the catalogue, the weights untouched, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.collection.index import WEIGHTS, read_index, sample_path
from cldistill.errors import CollectionError
from cldistill.records import EffectInfo, Prompts
from cldistill.storage.files import only_writer
from cldistill_plugins.incremental.edit import keep_removed, remove_effect, rename_effect
from cldistill_plugins.incremental.folder import read_folder


@pytest.fixture
def folder(tmp_path: Path, export: Callable[..., Path]) -> Path:
    pictures = {name: Image.new("RGB", (8, 8)) for name in ("manga-tone", "gold-frame")}
    return export(tmp_path / "collection", samples=pictures)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def header(folder: Path) -> dict[str, str]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        return dict(file.metadata())


def test_a_removed_effect_leaves_all_four_places_and_the_tensors_stay(folder: Path) -> None:
    before = load_file(folder / WEIGHTS)
    done = remove_effect(folder, "manga-tone")
    assert (done.effect.trigger, done.card) == ("vexo", True)
    after = load_file(folder / WEIGHTS)
    assert before.keys() == after.keys() and all(before[key].equal(after[key]) for key in before)
    collection = read_folder(folder)  # hashes and header agree
    assert [effect.name for effect in collection.index.effects] == ["gold-frame"]
    assert [effect.trigger for effect in collection.index.removed] == ["vexo"]
    assert [effect["name"] for effect in collection.listing["removed"]] == ["manga-tone"]
    found = header(folder)
    assert (found["modelspec.trigger_phrase"], found["modelspec.merged_from"]) == ("kuli", "gold-frame")
    assert json.loads(found["cldistill.teachers"]) == {"gold-frame": "b2"}
    card = (folder / "README.md").read_text()
    assert "1 image-editing effect and 8-step" in card and '.generate("photo.png", "gold-frame")' in card
    assert "vexo" not in card and "Taken out of this list, and still known to the weights: manga-tone." in card
    assert not (folder / "samples/manga-tone.png").exists()
    assert [effect["name"] for effect in collection.manifest["effects"]] == ["gold-frame"]
    assert collection.manifest["router"]["options"]["effect_weights"] == {}
    assert collection.manifest["samples"]["effects"] == ["gold-frame"]


def test_a_renamed_effect_keeps_trigger_and_prompt(folder: Path) -> None:
    rename_effect(folder, "manga-tone", "comic")
    collection = read_folder(folder)
    comic = collection.index.effect("comic")
    assert (comic.trigger, comic.prompt) == ("vexo", "vexo manga drawing with screen tone")
    assert [effect.name for effect in collection.index.effects] == ["comic", "gold-frame"]
    assert json.loads(header(folder)["cldistill.teachers"]) == {"comic": "a1", "gold-frame": "b2"}
    card = (folder / "README.md").read_text()
    assert "| comic | `vexo` |" in card and "![comic](samples/comic.png)" in card and "manga-tone" not in card
    assert (folder / "samples/comic.png").is_file()
    manifest = collection.manifest
    assert manifest["effects"][0]["name"] == "comic"
    assert manifest["effects"][0]["teacher"]["options"]["effect"] == "manga-tone"  # as the older collection calls it
    assert manifest["prompts"]["options"]["captions"] == {"comic": "manga drawing with screen tone"}
    assert manifest["samples"]["effects"] == ["comic", "gold-frame"]
    text = (folder / "manifest.resolved.yaml").read_text()
    assert text.startswith("# Resolved by cldistill; plugins:\n#   cldistill 0.1.0\n# renamed: manga-tone to comic,")


def test_what_a_link_leads_to_is_changed_and_the_link_stays(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(folder)
    remove_effect(tmp_path / "latest", "manga-tone")
    assert (tmp_path / "latest").is_symlink()
    assert [effect.name for effect in read_folder(folder).index.effects] == ["gold-frame"]


def test_a_name_of_any_script_is_shown_as_given(folder: Path) -> None:
    sample = (folder / "samples/manga-tone.png").read_bytes()
    rename_effect(folder, "manga-tone", "漫画 | a")
    rename_effect(folder, "gold-frame", "x" * 300)
    assert [effect.name for effect in read_folder(folder).index.effects] == ["漫画 | a", "x" * 300]
    shown = sample_path("漫画 | a")
    assert (
        "| 漫画 \\| a | `vexo` |" in (folder / "README.md").read_text() and shown in (folder / "README.md").read_text()
    )
    assert (folder / shown).read_bytes() == sample
    rename_effect(folder, "漫画 | a", "manga-tone")
    assert (folder / "samples/manga-tone.png").read_bytes() == sample


def test_options_are_not_taken_for_effects_of_their_name(
    tmp_path: Path, export: Callable[..., Path], manifest: str
) -> None:
    text = manifest.replace("gold-frame", "template")
    effects = (EffectInfo("manga-tone", "m"), EffectInfo("template", "t"))
    prompts = {"manga-tone": Prompts("vexo m", "m", "", "vexo"), "template": Prompts("kuli t", "t", "", "kuli")}
    folder = export(
        tmp_path / "collection", resolved_manifest=text, effects=effects, prompts=prompts,
        teacher_digests={"manga-tone": "a", "template": "b"},
    )  # fmt: skip
    rename_effect(folder, "template", "frame")
    options = read_folder(folder).manifest["prompts"]["options"]
    assert options["template"] == "{prompt}"


def test_a_copy_leaves_the_collection_as_it_is(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    rename_effect(folder, "manga-tone", "comic", tmp_path / "copy")
    assert contents(folder) == before
    assert read_folder(tmp_path / "copy").index.effect("comic").trigger == "vexo"
    assert sorted(contents(tmp_path / "copy")) == sorted(
        name.replace("manga-tone", "comic") if "samples" in name else name for name in before
    )


def test_what_a_grown_collection_takes_over(folder: Path, tmp_path: Path) -> None:
    removed = read_index(remove_effect(folder, "manga-tone", tmp_path / "less").path).removed
    keep_removed(folder, removed)
    assert [effect.trigger for effect in read_folder(folder).index.removed] == ["vexo"]
    once = contents(folder)
    keep_removed(folder, removed)
    assert contents(folder) == once


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda f: remove_effect(f, "manga-ton"), r"has no effect 'manga-ton'; did you mean 'manga-tone'\?"),
        (lambda f: rename_effect(f, "manga", "x"), r"has no effect 'manga'; did you mean 'manga-tone'\?"),
        (lambda f: rename_effect(f, "manga-tone", "gold-frame"), "has an effect 'gold-frame' already"),
        (lambda f: rename_effect(f, "manga-tone", "a/b"), "'a/b' is no name"),
        (lambda f: rename_effect(f, "manga-tone", "x", f), "is there already; choose another --output"),
        (lambda f: remove_effect(f / WEIGHTS, "manga-tone"), "name the collection's folder"),
    ],
)
def test_refusals_write_nothing(folder: Path, act: Callable[[Path], object], message: str) -> None:
    before = contents(folder.parent)
    with pytest.raises(CollectionError, match=message):
        act(folder)
    assert contents(folder.parent) == before


def test_of_what_may_only_be_read_a_copy_is_made_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = """
import sys, pathlib
from cldistill_plugins.incremental.edit import rename_effect
folder, output = map(pathlib.Path, sys.argv[1:])
rename_effect(folder, "manga-tone", "comic", output)
try:
    rename_effect(folder, "manga-tone", "comic")
except PermissionError as error:
    assert error.filename == str(folder), error
else:
    sys.exit("it was changed")
"""
    bare = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]  # root may write anywhere
    copy = tmp_path / "copy"
    done = subprocess.run(
        [*bare, sys.executable, "-c", code, folder, copy], capture_output=True, text=True, check=False
    )
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert contents(folder) == before and not list(tmp_path.glob("*.partial"))
    assert [effect.name for effect in read_folder(copy).index.effects] == ["comic", "gold-frame"]
    assert all(path.stat().st_mode & 0o200 for path in (copy, *copy.rglob("*")))


def test_what_a_killed_edit_left_is_cleared_by_the_next(folder: Path) -> None:
    before, pid = contents(folder), os.fork()
    if pid == 0:
        shutil.copytree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        try:
            rename_effect(folder, "manga-tone", "comic")
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]) and len(list(folder.parent.glob(".collection.*.partial"))) == 1
    assert contents(folder) == before
    rename_effect(folder, "manga-tone", "comic")
    assert not list(folder.parent.glob(".collection.*"))
    assert [effect.name for effect in read_folder(folder).index.effects] == ["comic", "gold-frame"]


def test_while_another_writes_there_nothing_is_changed(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with only_writer(folder.parent):  # as `cldistill run` holds it
        for output in (None, tmp_path / "copy"):
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} .* is writing there"):
                remove_effect(folder, "manga-tone", output)
    assert contents(folder) == before and not (tmp_path / "copy").exists()


def test_of_many_edits_at_once_none_is_undone(folder: Path) -> None:
    def act(number: int) -> str | Exception:
        name = ("manga-tone", "gold-frame")[number % 2]
        try:
            return rename_effect(folder, name, f"{name}-{number}").effect.name
        except (BlockingIOError, CollectionError) as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(act, range(8)))
    renamed = {found for found in done if isinstance(found, str)}
    effects = {effect.name for effect in read_folder(folder).index.effects}  # which compares its files
    assert renamed and effects - {"manga-tone", "gold-frame"} == renamed
    told = "is writing there|was changed meanwhile|has no effect"
    assert all(re.search(told, str(error)) for error in done if isinstance(error, Exception))
    assert not list(folder.parent.glob(".collection.*"))


def test_the_last_effect_stays(folder: Path) -> None:
    remove_effect(folder, "manga-tone")
    with pytest.raises(CollectionError, match="is its only effect; delete the folder instead"):
        remove_effect(folder, "gold-frame")


def test_a_damaged_folder_is_refused(folder: Path) -> None:
    listing = json.loads((folder / "effects.json").read_text())
    listing["effects"][0]["prompt"] = "something else"
    (folder / "effects.json").write_text(json.dumps(listing))
    with pytest.raises(CollectionError, match="its effects are not those in the header"):
        remove_effect(folder, "manga-tone")
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4] + b"abcd")
    with pytest.raises(CollectionError, match=r"its SHA-256 is .*one of the two was changed or damaged"):
        remove_effect(folder, "manga-tone")


def test_the_commands_say_what_they_cannot_do(folder: Path) -> None:
    renamed = CliRunner().invoke(cli.app, ["rename", str(folder), "manga-tone", "comic"])
    assert renamed.exit_code == 0 and "Its trigger and prompt stay" in renamed.output
    (folder / "README.md").write_text("my own words\n")
    removed = CliRunner().invoke(cli.app, ["remove", str(folder), "comic"])
    assert removed.exit_code == 0
    for words in ("the weights are the same, byte for byte", "vexo manga drawing with screen tone", "changed by hand"):
        assert words in removed.output
    assert (folder / "README.md").read_text() == "my own words\n"
