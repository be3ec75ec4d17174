"""Paths, names and JSON out of somebody else's file: one test for each way out."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from cldistill.errors import CldistillError, UnsafePathError, readable
from cldistill.storage.untrusted import file_stem, inside, is_name, leads_out, package_path, parse_json, plain
from cldistill.testing import plugin_environment


@pytest.mark.parametrize(
    "written",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "..",
        "",
        "C:\\x",
        "\\\\server\\x",
        "a\\..\\..\\x",
        "a\0b",
        "a\nb",
        5,
        None,
        ["x"],
    ],
)
def test_a_path_that_leads_out_is_refused(written: object, tmp_path: Path) -> None:
    with pytest.raises(UnsafePathError, match="no path inside this folder"):
        inside(tmp_path, written)


def test_links_out_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "collection"
    (folder / "samples").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "zero").symlink_to("/dev/zero")
    for name in ("link", "up", "up/secret", "zero"):
        with pytest.raises(UnsafePathError, match="link that leads out"):
            inside(folder, name)
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnsafePathError, match="pipe, socket or device"):
        inside(folder, "pipe")
    (folder / "own").symlink_to("samples")
    assert inside(folder, "own") == folder / "own"  # a link within is the folder's own affair
    assert inside(folder, "samples/new.png") == folder / "samples/new.png"  # nothing there yet
    (tmp_path / "by-link").symlink_to(folder)
    assert inside(tmp_path / "by-link", "samples") == tmp_path / "by-link/samples"


def test_the_hubs_cache_is_a_folder_of_links(tmp_path: Path) -> None:
    folder = tmp_path / "models--owner--name/snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    blob = tmp_path / "models--owner--name/blobs/abc"
    blob.parent.mkdir()
    blob.write_text("{}")
    (folder / "effects.json").symlink_to("../../blobs/abc")
    assert inside(folder, "effects.json").read_text() == "{}"
    (tmp_path / "models--other").mkdir()
    (folder / "out").symlink_to(tmp_path / "models--other")
    with pytest.raises(UnsafePathError):
        plain(folder / "out", folder)


def test_packages_are_found_by_spec_and_only_those_of_plugins(tmp_path: Path) -> None:
    package = tmp_path / "src/stranger"
    (package / "data").mkdir(parents=True)
    for name in ("__init__.py", "plugin.py"):
        (package / name).write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path / "src"))
    try:
        with pytest.raises(UnsafePathError, match="that registered plugins of cldistill"):
            package_path("package:stranger/data")
    finally:
        sys.path.remove(str(tmp_path / "src"))
    with plugin_environment({"stranger": "stranger.plugin"}, [str(tmp_path / "src")]):
        assert package_path("package:stranger/data") == package / "data"
        assert package_path("package:stranger.data") == package / "data/."
        with pytest.raises(UnsafePathError):
            package_path("package:stranger/../../x")
    assert "stranger" not in sys.modules
    for other in ("os/x", "json/x", "pytest/x", "/x", ".x/y", ""):
        with pytest.raises(UnsafePathError):
            package_path(f"package:{other}")


def test_names() -> None:
    for good in ("manga-tone", "漫画", "two words", "x" * 300, "naïve.1", "Ж"):
        assert is_name(good)
    for bad in ("", ".", "..", ".x", "a/b", "a\\b", " a", "a\n", "a\x1b[31m", "x" * 301, "a\u202eb", 5, None, "\ud800"):
        assert not is_name(bad)


def test_names_of_files_made_of_them() -> None:
    for same in ("manga-tone", "Oil_2.1", "a+b", "x" * 100):
        assert file_stem(same) == same
    wide = [
        "漫画",
        "two words",
        "two-words ",
        "x" * 300,
        "x" * 299 + "y",
        "-",
        "CON: <b>*?",
        "漫" * 300,
        "naïve|.",
        "❄",
    ]
    made = [file_stem(name) for name in wide]
    assert len(set(made)) == len(wide)
    assert all(re.fullmatch(r"\w[\w.-]*", name) and len(name.encode()) < 200 for name in made)
    assert made[0].startswith("漫画-")


def test_what_leads_out() -> None:
    for out in ("/x", "~/x", "a/../b", "..", "C:\\x", "c:/x", "\\\\s\\x"):
        assert leads_out(out)
    for within in ("pairs", "a/b", "http://localhost:8000/v1", "Qwen/Qwen-Image-Edit", "package:a.b/c", 5, None, "..."):
        assert not leads_out(within)


def test_json_that_is_none() -> None:
    assert parse_json(b'{"a": [1.5, "x"]}') == {"a": [1.5, "x"]}
    for text in (
        "[" * 100_000,
        '{"a":' * 100_000,
        "[NaN]",
        "[Infinity]",
        b"\xff",
        '{"a": 1}'.encode("utf-16"),
        "9" * 5000,
    ):
        with pytest.raises(ValueError):
            parse_json(text)


@pytest.mark.parametrize(
    "secret",
    [
        "https://user:SECRET@host/v1", "https://SECRET@host", "http://host/v1?api_key=SECRET&x=SECRET", "sk-SECRET0123456",
        "hf_SECRET0123456",
    ],
)  # fmt: skip
def test_messages_mask_secrets(secret: str) -> None:
    assert "SECRET" in secret and "SECRET" not in str(CldistillError(f"{secret!r}: must hold no key"))


@pytest.mark.slow
def test_messages_cannot_steer_a_terminal_and_end() -> None:
    text = str(CldistillError("a\x1b[31mb\r\x9bc\u202ed\ud800e\nnext 漫画"))
    assert text == "a\\x1b[31mb\\r\\x9bc\\u202ed\\ud800e\nnext 漫画"
    assert len(readable("x" * 10**7)) < 11_000
    assert "hunter2" not in readable("x" * 1380 + " https://me:hunter2" + "2" * 700 + "@a.example/v1")
