"""Pairs are found as they lie on people's disks, and what is wrong with one is named."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from cldistill.data.items import Listing, list_pairs, listing_of, open_picture, pairs_of
from cldistill.errors import DataError
from cldistill.records import EffectInfo

JUNK = ("._1.png", ".DS_Store", "Thumbs.db", "__MACOSX/1.png")


def lay(folder: Path, files: Mapping[str, str]) -> Path:
    """Write pictures (``#RRGGBB``), and texts."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("#"):
            Image.new("RGB", (8, 8), content).save(path)
        else:
            path.write_text(content, encoding="utf-8")
    for name in JUNK:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    return folder


RED, BLUE = "#ff0000", "#0000ff"
"""Every before is red, and every after blue."""
LAYOUTS: dict[str, tuple[dict[str, str], str, str]] = {
    "any case": ({"Source/1.jpg": RED, "TARGET/1.png": BLUE}, "", "Source/ and TARGET/"),
    "before and after": ({"before/x/1.png": RED, "after/x/1.png": BLUE}, "", "before/ and after/"),
    "both name the side": ({"before/1_before.png": RED, "after/1_after.png": BLUE}, "", "before/ and after/"),
    "captions beside": ({"input/1.png": RED, "output/1.png": BLUE, "output/1.txt": "say\n"}, "say", "input/ and output/"),
    "ai-toolkit": ({"1.png": BLUE, "1.txt": "say", "control/1.jpg": RED}, "say", "pictures with control/ beside them"),
    "a folder of texts": (
        {"source/1.png": RED, "target/1.png": BLUE, "prompts/1.txt": "say"}, "say", "source/ and target/",
    ),
    "musubi-tuner": ({"images/1.png": BLUE, "images/1.txt": "say", "controls/1.png": RED}, "say", "controls/ and images/"),
    "ends": ({"1_before.png": RED, "1_after.png": BLUE, "1.txt": "say"}, "say", "names that end in _before and _after"),
    "fal": ({"a b_start.png": RED, "a b_end.png": BLUE}, "", "names that end in _start and _end"),
    "letters": ({"1_R.png": RED, "1_L.png": BLUE}, "", "names that end in _R (before) and _L (after)"),
    "csv": ({"data.csv": "input;output;caption\na.png;b.png;say\n", "a.png": RED, "b.png": BLUE}, "say", "the list data.csv"),
    "json": (
        {"d.json": json.dumps({"data": [{"before": "a.png", "after": "b.png"}]}), "a.png": RED, "b.png": BLUE}, "",
        "the list d.json",
    ),
    "jsonl of a trainer": (
        {
            "m.jsonl": json.dumps({"image_path": "i\\b.png", "control_path_0": "c/a.png", "caption": "say"}),
            "c/a.png": RED, "i/b.png": BLUE,
        }, "say", "the list m.jsonl",
    ),
    "edit_image": (
        {"m.json": json.dumps([{"image": "b.png", "edit_image": "a.png", "prompt": "say"}]), "a.png": RED, "b.png": BLUE},
        "say", "the list m.json",
    ),
    "image folder": (
        {
            "train/metadata.jsonl": json.dumps({"file_name": "a.png", "edited_file_name": "b.png", "edit_prompt": "say"}),
            "train/a.png": RED, "train/b.png": BLUE,
        }, "say", "the list metadata.jsonl",
    ),
    "metadata for texts alone": (
        {"metadata.csv": "file_name,text\ntarget/1.png,say\n", "source/1.png": RED, "target/1.png": BLUE}, "say",
        "source/ and target/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_read_with_its_captions(tmp_path: Path, name: str) -> None:
    files, said, layout = LAYOUTS[name]
    found = list_pairs(lay(tmp_path / "x", files), "gold", "gild it", opened=True)
    assert (found.layout, found.problems, found.captions) == (layout, (), int(bool(said)))
    (item,) = found.items
    assert item.target is not None and item.prompt == (said or "gild it")
    seen = [Image.open(path).convert("RGB").getpixel((4, 4)) for path in (*item.sources, item.target)]
    assert [round(value / 100) for pixel in seen for value in pixel] == [3, 0, 0, 0, 0, 3]  # JPEG is not exact


def test_controls_beside_the_folder_of_pictures_are_found(tmp_path: Path) -> None:
    lay(tmp_path / "manga", {"1.png": BLUE, "1.txt": "say"})
    lay(tmp_path / "manga_control", {"1.png": RED})
    (item,) = list_pairs(tmp_path / "manga", "x", "").items
    assert (item.sources, item.prompt) == ((tmp_path / "manga_control/1.png",), "say")


def test_several_references_by_numbers_of_folders_or_of_names(tmp_path: Path) -> None:
    lay(tmp_path / "a", {"control_1/1.png": RED, "control_2/1.png": RED, "target/1.png": BLUE})
    lay(tmp_path / "b", {"control/1_0.png": RED, "control/1_1.png": RED, "images/1.png": BLUE})
    for folder, names in (("a", ["control_1/1.png", "control_2/1.png"]), ("b", ["control/1_0.png", "control/1_1.png"])):
        found = list_pairs(tmp_path / folder, "x", "")
        assert [[path.relative_to(tmp_path / folder).as_posix() for path in item.sources] for item in found.items] == [
            names
        ]
        assert not found.problems


def test_one_name_in_two_unicode_forms_is_one(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFD", "NFC")]
    assert forms[0] != forms[1]
    found = list_pairs(lay(tmp_path, {f"source/{forms[0]}.png": RED, f"target/{forms[1]}.png": BLUE}), "x", "")
    assert [item.key for item in found.items] == [f"x/{forms[1]}"] and not found.problems


def test_captions_of_pictures_alone_are_no_instructions(tmp_path: Path) -> None:
    found = list_pairs(lay(tmp_path, {"1.png": RED, "1.txt": "a red square"}), "x", "gild it")
    assert [(item.prompt, item.target) for item in found.items] == [("gild it", None)]


def damaged(folder: Path) -> Path:
    """Write six pairs of which one is sound, and each other is wrong in another way."""
    lay(folder, {f"{side}/{n}.png": RED for side in ("source", "target") for n in ("1", "2", "4", "5")})
    lay(folder, {"source/6.png": RED})
    Image.effect_noise((64, 64), 90).save(folder / "whole.jpg")
    (folder / "target/2.png").write_bytes((folder / "whole.jpg").read_bytes()[:900])
    (folder / "whole.jpg").unlink()
    for side in ("source", "target"):
        (folder / side / "3.png").mkdir()
    (folder / "target/4.png").unlink()
    (folder / "target/4.png").symlink_to(folder / "gone.png")
    Image.new("RGB", (9, 8)).save(folder / "target/5.png")
    return folder


def test_each_wrong_pair_is_named_with_what_to_do_and_skipped_if_asked(tmp_path: Path) -> None:
    folder = damaged(tmp_path / "pairs")
    with pytest.raises(DataError, match=r"6\.png: has no after-picture"):
        pairs_of(EffectInfo("x", "y", folder))
    found = listing_of(EffectInfo("x", "y", folder), opened=True)
    for name, words in (
        ("target/2.png", "cannot be read as a picture"), ("source/3.png", "is a folder with the name of a picture"),
        ("target/4.png", "is a link to a file that is not there"), ("target/5.png", "is 9 x 8, and .* stretched by 1[12]%"),
        ("source/6.png", "has no after-picture of the same name"),
    ):  # fmt: skip
        assert [text for text in found.problems if name in text], name
        assert [text for text in found.problems if re.search(words, text)], words
    assert len(found.problems) == 5
    assert [item.key for item in pairs_of(EffectInfo("x", "y", folder, skip=True))] == ["x/1"]
    assert found.told.startswith("1 pairs by source/ and target/, 5 left out, the first: ")


def test_pipes_are_no_pictures_and_no_texts(tmp_path: Path) -> None:
    folder = lay(tmp_path, {f"{side}/{n}.png": RED for side in ("source", "target") for n in ("1", "2")})
    os.mkfifo(folder / "target/1.txt")  # would be waited for
    (folder / "target/2.png").unlink()
    os.mkfifo(folder / "target/2.png")
    found = listing_of(EffectInfo("x", "y", folder), opened=True)
    assert [(item.key, item.prompt) for item in found.items] == [("x/1", "y")]
    assert len(found.problems) == 1 and "2.png: is a pipe or device with the name of a picture" in found.problems[0]
    with pytest.raises(DataError, match="is a pipe or device"):
        open_picture(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"source": 5, "target": "a.png"}', r"p\.jsonl:1: a picture is the name of a file, or a list of such, not 5"),
        ('{"source": [], "target": "a.png"}', r"p\.jsonl:1: its list of pictures is empty"),
        ('{"source": "a.png", "target": ["a.png"]}', r'p\.jsonl:1: "target" is the name of a picture, not list'),
        ('{"source": "a.png", "target": "a.png", "prompt": 3}', r'p\.jsonl:1: "prompt" must be text, not int'),
        ('{"source": "a\\u0000.png", "target": "a.png"}', r"p\.jsonl:1: .*no such picture"),
        ('{"image": "a.png"}', r'p\.jsonl:1: needs "source" and "target" .* it has "image"'),
        ("[", r"p\.jsonl:1: is not JSON"),
        ("\n \n", r"p\.jsonl: holds no pairs: it is empty"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    lay(tmp_path, {"a.png": RED, "p.jsonl": line})
    with pytest.raises(DataError, match=words):
        pairs_of(EffectInfo("x", "y", tmp_path / "p.jsonl"))


def test_where_nothing_is_found_it_is_said_what_lies_there_and_what_would_do(tmp_path: Path) -> None:
    lay(tmp_path / "one", {"source/1.png": RED, "target/1.png": BLUE})
    lay(tmp_path / "two", {"notes.txt": "x"})
    (tmp_path / "all.zip").write_bytes(b"PK")
    with pytest.raises(DataError) as caught:
        list_pairs(tmp_path, "x", "")
    for words in (
        "1 x .zip",
        "2 folders (one, two)",
        "one holds pairs: name one",
        "unpack its .zip",
        "_before and _after",
    ):
        assert words in str(caught.value)


def test_what_is_said_of_a_listing() -> None:
    assert Listing("a list", ()).told == "0 pictures by a list"
