"""A collection from a stranger: one test for each door through which it might reach beyond its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cldistill.collection.index import WEIGHTS, read_index
from cldistill.errors import CldistillError, CollectionError, UnsafePathError
from cldistill.storage.files import sha256_file
from cldistill_plugins.deployment.split import read_groups
from cldistill_plugins.diffusers_base.folder import DiffusersFolder
from cldistill_plugins.generation.job import names_of
from cldistill_plugins.generation.splits import routed
from cldistill_plugins.hub.files import read_upload
from cldistill_plugins.incremental.edit import remove_effect, rename_effect
from cldistill_plugins.incremental.folder import read_folder, run_beside
from cldistill_plugins.incremental.prepare import refuse_address

Change = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path, export: Callable[..., Path]) -> Path:
    (tmp_path / "victim.png").write_bytes(b"mine")
    made = export(tmp_path / "collection", samples={"manga-tone": Image.new("RGB", (8, 8))})
    (made / "private").mkdir()
    return made


@pytest.fixture
def rewrite(folder: Path) -> Change:
    """Change entries of the header, and let all hashes be right again, as a stranger would."""

    def change(**entries: str) -> None:
        file = folder / WEIGHTS
        with safe_open(file, framework="pt") as old:
            metadata = {**old.metadata(), **{key.replace("__", "."): value for key, value in entries.items()}}
        save_file(load_file(file), file, metadata)
        listing = json.loads((folder / "effects.json").read_text()) | {"weights_sha256": sha256_file(file)}
        listing["effects"] = json.loads(metadata["cldistill.effects"])
        (folder / "effects.json").write_text(json.dumps(listing))

    return change


def effects(name: Any, **more: Any) -> str:
    entries = [{"name": name, "trigger": "x", "prompt": "p", "teacher_prompt": "p", **more}]
    return json.dumps([*entries, {**entries[0], "name": "other"}])


@pytest.mark.parametrize("name", ["../../victim", "/tmp/victim", "..", "a\x1b[31m", "", 5, "a\\..\\b"])
def test_a_name_that_is_a_path_is_refused_when_the_header_is_read(name: Any, folder: Path, rewrite: Change) -> None:
    rewrite(cldistill__effects=effects(name))
    for action in (lambda: read_index(folder), lambda: remove_effect(folder, str(name))):
        with pytest.raises(CollectionError, match="is damaged"):
            action()
    with pytest.raises(CollectionError):
        rename_effect(folder, str(name), "new")
    assert (folder.parent / "victim.png").read_bytes() == b"mine"


@pytest.mark.parametrize("prompt", ["\x1b]0;owned\x07", "a\u202eb", 5, None])
def test_a_prompt_that_would_steer_the_terminal_is_refused(prompt: Any, folder: Path, rewrite: Change) -> None:
    rewrite(cldistill__effects=effects("a", prompt=prompt))
    with pytest.raises(CollectionError, match="cannot be shown"):
        read_index(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("effects", "[" * 100_000), ("effects", "null"), ("effects", '[{"name": [1], "trigger": {}, "prompt": 5}]'),
        ("steps", "1000000000"), ("steps", "nan"), ("shift", "inf"), ("shift", "-1"), ("base_options", "[]"),
        ("base_options", '{"model": "/etc"}'), ("base_options", '{"model": "../x"}'), ("removed", "[5]"),
    ],
)  # fmt: skip
def test_a_header_of_odd_values_is_refused(key: str, value: str, folder: Path, rewrite: Change) -> None:
    with safe_open(folder / WEIGHTS, framework="pt") as old:
        metadata = {**old.metadata(), f"cldistill.{key}": value}
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata)
    with pytest.raises(CollectionError, match="header is damaged"):
        read_index(folder)


@pytest.mark.parametrize("steps", ["many", "", "1e3", "9" * 5000])
def test_generator_steps_that_are_no_number_are_refused(steps: str, folder: Path, rewrite: Change) -> None:
    rewrite(cldistill__generator_steps=steps)
    shutil.copy(folder / "manifest.resolved.yaml", folder.parent)
    with pytest.raises(CollectionError, match=r"header is damaged .* generator steps"):
        run_beside(read_folder(folder))


@pytest.mark.parametrize("name", ["samples/more.png", "effects.json", "manifest.resolved.yaml", WEIGHTS])
def test_links_out_are_neither_read_copied_nor_uploaded(name: str, folder: Path) -> None:
    secret = folder.parent / "secret"
    if (folder / name).exists():
        (folder / name).rename(secret)
    else:
        secret.write_bytes(b"mine")
    (folder / name).symlink_to(secret)
    with pytest.raises(UnsafePathError, match="link that leads out"):
        remove_effect(folder, "manga-tone", folder.parent / "copy")
    assert not (folder.parent / "copy").exists()
    if not name.startswith("samples"):
        with pytest.raises(UnsafePathError):
            read_upload(folder)


def test_a_folder_that_is_a_link_and_a_pipe_are_not_copied(folder: Path) -> None:
    (folder / "round").symlink_to(folder)
    with pytest.raises(UnsafePathError, match="link to a folder"):
        remove_effect(folder, "manga-tone")
    (folder / "round").unlink()
    os.mkfifo(folder / "private/pipe")
    with pytest.raises(UnsafePathError, match="pipe, socket or device"):
        remove_effect(folder, "manga-tone")
    (folder / "private/pipe").unlink()
    (folder / "effects.json").unlink()
    os.mkfifo(folder / "effects.json")
    with pytest.raises(UnsafePathError, match="pipe, socket or device"):
        read_folder(folder)


@pytest.mark.parametrize("field", ["collection", "run", "manifest"])
@pytest.mark.parametrize("path", ["../../elsewhere", "/etc", "link"])
def test_a_split_names_no_folder_outside_its_own(field: str, path: str, tmp_path: Path) -> None:
    split = tmp_path / "split"
    split.mkdir()
    (split / "link").symlink_to(tmp_path)
    group = {"name": "bank-1", "manifest": "1.yaml", "run": "one", "collection": "one/collection", "effects": ["a"]}
    data = {"format": 1, "name": "x", "key": "", "measured": "", "figures": {}, "groups": [{**group, field: path}]}
    (split / "groups.json").write_text(json.dumps(data))
    own, others = [lambda: read_groups(split)], [lambda: routed(split, ["a"]), lambda: names_of(split)]
    for read in others if field == "collection" else own:
        with pytest.raises(UnsafePathError):
            read()


def test_a_link_below_a_group_of_a_split_leads_no_load_out(tmp_path: Path) -> None:
    split = tmp_path / "split"
    (split / "one").mkdir(parents=True)
    (split / "one/collection").symlink_to(tmp_path)
    group = {"name": "bank-1", "manifest": "1.yaml", "run": "one", "collection": "one/collection", "effects": ["a"]}
    data = {"format": 1, "name": "x", "key": "", "measured": "", "figures": {}, "groups": [group]}
    (split / "groups.json").write_text(json.dumps(data))
    with pytest.raises(UnsafePathError):
        read_groups(split).file_of("a")


def test_a_manifest_names_no_path_outside_the_collection(folder: Path) -> None:
    manifest = folder / "manifest.resolved.yaml"
    text = manifest.read_text()
    for path in ("/home/you/pictures", "~/pictures", "../../pictures"):
        manifest.write_text(re.sub("images: held-out", f"images: {path}", text))
        with pytest.raises(CollectionError, match="outside of the collection"):
            read_folder(folder)


def test_no_picture_is_sent_to_an_address_that_the_collection_brought(folder: Path) -> None:
    manifest = folder / "manifest.resolved.yaml"
    told = "  options:\n    endpoint: http://a.example/v1\n    captions"
    manifest.write_text(manifest.read_text().replace("  options:\n    captions", told))
    collection = read_folder(folder)
    with pytest.raises(CldistillError, match=r"would send pictures to http://a\.example/v1"):
        refuse_address(collection, ())
    refuse_address(collection, ["prompts.options.endpoint=http://a.example/v1"])
    judge = {"use": "judge", "options": {"endpoint": "https://b.example/v1", "model": "m"}}
    judged = replace(collection, manifest={"evaluate": {"metrics": [{"use": "likeness"}, judge]}, "observers": [judge]})
    with pytest.raises(
        CldistillError, match=r"https://b\.example/v1.*--set evaluate\.metrics\.judge\.options\.endpoint="
    ):
        refuse_address(judged, ["evaluate.pictures=4"])
    refuse_address(judged, ["evaluate=null"])


def test_a_base_out_of_a_package_that_is_no_plugin_is_not_imported() -> None:
    with pytest.raises(CldistillError, match="registered no plugins"):
        DiffusersFolder("package:this/pipeline", None, "X", (), "cldistill_plugins.qwen_image_edit").find()
    assert "this" not in sys.modules


def test_a_good_collection_still_passes_every_door(folder: Path) -> None:
    assert [effect.name for effect in read_folder(folder).index.effects] == ["manga-tone", "gold-frame"]
    assert set(read_upload(folder).effects) == {"manga-tone", "gold-frame"}
    done = remove_effect(folder, "manga-tone", folder.parent / "copy")
    assert not (done.path / "samples/manga-tone.png").exists()
