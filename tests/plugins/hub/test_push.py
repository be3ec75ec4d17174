"""``cldistill push``: what arrives on a hub, private unless the public is asked for, and what is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import CONTROL, CollectionError
from cldistill_plugins.hub.card import hub_card, read_card
from cldistill_plugins.hub.files import read_upload
from cldistill_plugins.hub.upload import must_be_name


@pytest.fixture
def collection(tiny_run: Path, tmp_path: Path) -> Path:
    """A collection with a sample, and with a file in it that is nobody's business."""
    folder = Path(shutil.copytree(tiny_run, tmp_path / "collection"))
    (folder / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), (10, 200, 30)).save(folder / "samples" / "invert.png")
    (folder / "notes.txt").write_text("password: swordfish")
    (folder / ".env").write_text("KEY=swordfish")
    return folder


FILES = {
    "pytorch_lora_weights.safetensors", "README.md", "effects.json", "scheduler_config.json", "manifest.resolved.yaml",
    "samples/invert.png",
}  # fmt: skip


@pytest.mark.slow
def test_a_collection_arrives_private_with_its_card_and_nothing_else(cli: Any, hub: Any, collection: Path) -> None:
    done = cli(
        "push", collection, "somebody/two-effects", "--license", "apache-2.0", "--base-model", "Qwen/Qwen-Image-Edit"
    )
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["somebody/two-effects"]
    assert repository.private
    (commit,) = repository.commits
    files = repository.commits[commit]
    assert set(files) == FILES
    for name in FILES - {"README.md"}:
        assert files[name] == (collection / name).read_bytes(), name
    data, body = read_card(files["README.md"].decode())
    assert data["base_model"] == "Qwen/Qwen-Image-Edit" and data["base_model_relation"] == "adapter"
    assert (data["license"], data["pipeline_tag"], data["library_name"]) == (
        "apache-2.0",
        "image-to-image",
        "diffusers",
    )
    assert {"lora", "image-editing", "cldistill"} <= set(data["tags"])
    assert data["widget"][0]["output"] == {"url": "samples/invert.png"}
    assert 'Collection.load("somebody/two-effects")' in body
    assert f"somebody/two-effects@{commit}" in done.stdout and ".env, notes.txt" in done.stdout
    assert f"{hub.address}/somebody/two-effects" in done.stdout
    assert 'Collection.load(".")' in (collection / "README.md").read_text()  # the folder itself stays as it was


@pytest.mark.slow
def test_what_is_refused_says_why_and_never_shows_the_token(
    cli: Any, hub: Any, collection: Path, loopback: Any
) -> None:
    words = ("push", collection)
    secret = "hf_" + "s" * 34
    for token, name, said in (
        (None, "somebody/x", "nobody is logged in"), (secret, "somebody/x", "(401); the token is not valid"),
        (loopback.TOKEN, "foreign/x", "(403); the token may not write there"),
    ):  # fmt: skip
        done = cli(*words, name, "--license", "mit", token=token)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert secret not in done.stdout + done.stderr and loopback.TOKEN not in done.stdout + done.stderr
    assert hub.repositories == {}
    done = cli(*words, "somebody/x", "--license", "appache-2.0")
    assert done.returncode == 2 and '"license" must be one of [apache-2.0, mit]' in done.stderr, done.stderr
    assert hub.repositories["somebody/x"].commits == {}
    hub.add("somebody/open", {})
    done = cli(*words, "somebody/open", "--license", "mit")
    assert done.returncode == 2 and "everybody can read it; --public says that this is meant" in done.stderr
    assert list(hub.repositories["somebody/open"].commits.values()) == [{}]
    done = cli(*words, "somebody/open", "--license", "mit", "--public")
    assert done.returncode == 0, done.stderr
    there = hub.repositories["somebody/open"]
    assert set(there.commits[there.refs["main"]]) >= FILES


@pytest.mark.slow
def test_a_dry_run_asks_nobody(cli: Any, hub: Any, collection: Path) -> None:
    done = cli("push", collection, "somebody/x", "--license", "mit", "--dry-run", token=None)
    assert done.returncode == 0, done.stderr
    assert "license: mit" in done.stdout and "pytorch_lora_weights.safetensors" in done.stdout
    assert hub.asked == []
    done = cli("push", collection, "somebody/x", "--dry-run")  # no terminal to ask in
    assert done.returncode == 2 and "nothing says under which licence it is; --license" in done.stderr


def test_what_the_owner_wrote_in_the_card_stays(collection: Path) -> None:
    text = (collection / "README.md").read_text()
    data, body = read_card(text)
    data |= {"license": "mit", "tags": ["mine", "lora"], "language": "en", "base_model": "a/b"}
    (collection / "README.md").write_text(f"---\n{yaml.safe_dump(data)}---\n{body}\nMy own words.\n")
    found, after = read_card(hub_card(read_upload(collection), "me/x", None, None))
    assert (found["license"], found["language"], found["base_model"]) == ("mit", "en", "a/b")
    assert found["tags"][:2] == ["mine", "lora"] and found["tags"].count("lora") == 1
    assert after.endswith("My own words.\n")
    assert read_card(hub_card(read_upload(collection), "me/x", "apache-2.0", "c/d"))[0]["base_model"] == "c/d"


BOMB = "a: &a [x]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*a'] * 10)}]\n" for i in range(9))


@pytest.mark.parametrize(
    "front",
    ["[" * 100_000, "a: " + "{a: " * 3000 + "}" * 3000, BOMB, "a: &a [*a]", "a: !!int x", "? [a]\n: b", "a: [", "a: \x07",
     "a: " + "9" * 5000, "license: [mit]", "license: 5"],
)  # fmt: skip
def test_front_matter_that_is_none_is_refused_in_words(front: str, collection: Path) -> None:
    (collection / "README.md").write_text(f"---\n{front}\n---\nBody.\n")
    with pytest.raises(CollectionError, match=r"README\.md: its"):
        read_upload(collection)


def test_what_a_card_may_hold_is_kept(collection: Path) -> None:
    front = 'tags: [{a: b}, mine]\ndate: 2001-99-99\nsaid: "\\u202e"'
    (collection / "README.md").write_text(f"---\n{front}\n---\nBody.\n")
    data = read_card(hub_card(read_upload(collection), "me/x", "mit", None))[0]
    assert data["tags"][:3] == [{"a": "b"}, "mine", "lora"] and data["date"] == "2001-99-99"
    (collection / "README.md").write_bytes("ä".encode("latin-1"))
    with pytest.raises(CollectionError, match="is not UTF-8"):
        read_upload(collection)


def test_names_from_a_folder_do_not_steer_the_terminal(collection: Path) -> None:
    for name in (b"\x1b[31mred", b"a\xff", "\u202e".encode()):
        Path(os.fsdecode(os.fsencode(collection) + b"/" + name)).write_text("x")
    done = CliRunner().invoke(app, ["push", str(collection), "me/x", "--dry-run", "--license", "mit"], color=True)
    assert done.exit_code == 0, done.exception
    assert r"\x1b[31mred" in done.output and r"a\udcff" in done.output and r"\u202e" in done.output
    assert not CONTROL.search(done.output)


def test_a_base_that_is_on_the_hub_is_named(collection: Path) -> None:
    upload = read_upload(collection)
    assert upload.base is None  # the kit's base
    assert "base_model" not in read_card(hub_card(upload, "me/x", "mit", None))[0]


@pytest.mark.parametrize(
    "name", ["", "me", "me/", "/x", "a/b/c", "me/a b", "me/../x", "me/a--b", "me/" + "x" * 97, "-me/x"]
)
def test_what_can_be_no_name_is_refused(name: str) -> None:
    with pytest.raises(CollectionError, match="write OWNER/NAME"):
        must_be_name(name)


@pytest.mark.parametrize("licence", ["Apache 2.0", "MIT", "../x", "a\nb"])
def test_a_licence_is_written_as_the_hub_does(licence: str, collection: Path) -> None:
    with pytest.raises(CollectionError, match="in small letters"):
        hub_card(read_upload(collection), "me/x", licence, None)


def test_files_that_do_not_belong_together_are_refused(collection: Path, tmp_path: Path) -> None:
    (collection / "scheduler_config.json").unlink()
    (collection / "scheduler_config.json").symlink_to(collection / "notes.txt")
    with pytest.raises(CollectionError, match=r"scheduler_config\.json: is missing"):
        read_upload(collection)
    (collection / "scheduler_config.json").unlink()
    (collection / "scheduler_config.json").write_text("{}")
    (collection / "effects.json").write_text('{"weights_sha256": "0"}')
    with pytest.raises(CollectionError, match="is not the file that"):
        read_upload(collection)
    with pytest.raises(CollectionError, match="no such folder"):
        read_upload(tmp_path / "nowhere")
