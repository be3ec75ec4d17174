"""Any picture works, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cldistill.data.items import general_items, held_pairs, open_picture, pairs_of
from cldistill.errors import DataError
from cldistill.records import EffectInfo
from cldistill.testing.pictures import effect_items, picture, write_pairs


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    palette.save(tmp_path / "palette.gif", transparency=1)
    assert open_picture(tmp_path / "palette.gif").getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    landscape = Image.new("RGB", (6, 2), "blue")
    exif = landscape.getexif()
    exif[0x0112] = 6
    landscape.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").size == (2, 6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    assert open_picture(Image.new(mode, (5, 3))).mode == "RGB"


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [open_picture(deep).getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.png: cannot be read as a picture"):
        open_picture(tmp_path / "notes.png")
    with pytest.raises(DataError, match=r"gone\.png: no such picture"):
        open_picture(tmp_path / "gone.png")


def test_pairs_without_a_partner_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 2)
    picture().save(tmp_path / "pairs/source/lonely.png")
    with pytest.raises(DataError, match=r"lonely\.png: has no after-picture"):
        effect_items(tmp_path / "pairs", "x", "y")


def test_pictures_that_differ_in_their_suffix_alone_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 2)
    picture().save(tmp_path / "pairs/target/001.jpg")
    with pytest.raises(DataError, match=r"001\.png: 001\.jpg has the same name"):
        effect_items(tmp_path / "pairs", "x", "y")


def test_a_decompression_bomb_is_a_picture_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"huge\.png: has more pixels"):
        open_picture(tmp_path / "huge.png")


def test_a_jsonl_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_bytes('{"prompt": "caf\u00e9"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"pairs\.jsonl: is not UTF-8.*save it as UTF-8"):
        effect_items(tmp_path / "pairs.jsonl", "x", "y")


def test_a_byte_order_mark_windows_line_ends_and_odd_separators_are_no_obstacle(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    line = '{"image": "a.png", "instruction": "one\u2028two\u0085"}'
    (tmp_path / "g.jsonl").write_bytes(("\ufeff" + line + "\r\n" + line + "\r\n").encode())
    found = general_items(tmp_path, tmp_path / "g.jsonl")
    assert [item.prompt for item in found] == ["one\u2028two\u0085"] * 2
    assert [item.key for item in found] == ["general/000001", "general/000002"]


def test_an_empty_prompt_of_a_pair_is_the_effects_and_one_that_is_no_text_is_named(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    row = '{"source": "a.png", "target": "a.png", "prompt": %s}'
    (tmp_path / "pairs.jsonl").write_text("\n".join(row % prompt for prompt in ("null", '""')))
    assert [item.prompt for item in effect_items(tmp_path / "pairs.jsonl", "x", "shared")] == ["shared", "shared"]
    (tmp_path / "pairs.jsonl").write_text(row % "3")
    with pytest.raises(DataError, match=r'pairs\.jsonl:1: "prompt" must be text, not int'):
        effect_items(tmp_path / "pairs.jsonl", "x", "shared")


def test_a_jsonl_of_pairs_with_several_references_and_own_prompts(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture().save(tmp_path / name)
    lines = [
        '{"source": ["a.png", "b.png"], "target": "c.png", "prompt": "own"}',
        "",
        '{"source": "a.png", "target": "c.png"}',
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    first, second = effect_items(tmp_path / "pairs.jsonl", "x", "shared")
    assert [p.name for p in first.sources] == ["a.png", "b.png"]
    assert (first.prompt, second.prompt) == ("own", "shared")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"g\.jsonl:1: is not JSON"),
        ("[1]", r"g\.jsonl:1: must be a JSON object, not list"),
        ('{"image": "a.png"}', r'g\.jsonl:1: needs "image" and "instruction"'),
        ('{"image": "gone.png", "instruction": "x"}', r"g\.jsonl:1: .*gone\.png: no such picture"),
        ("", r"g\.jsonl: holds no instructions"),
    ],
)
def test_bad_instructions_have_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "g.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        general_items(tmp_path, tmp_path / "g.jsonl")


@pytest.mark.parametrize(("take", "expected"), [(None, 7), (9, 7), (1, [0]), (3, [0, 2, 4]), (7, 7)])
def test_an_effect_may_take_fewer_pairs_spread_evenly(
    tmp_path: Path, take: int | None, expected: int | list[int]
) -> None:
    everything = effect_items(write_pairs(tmp_path / "pairs", 7), "gold", "gild it")
    found = pairs_of(EffectInfo("gold", "gild it", tmp_path / "pairs", take))
    assert found == (everything if isinstance(expected, int) else [everything[index] for index in expected])


def test_held_out_pairs_are_spread_and_nothing_is_trained_on_them(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 6)
    effect = EffectInfo("gold", "gild it", folder, held_out=2)
    assert [item.key for item in held_pairs(effect)] == ["gold/000", "gold/003"]
    assert [item.key for item in pairs_of(effect)] == ["gold/001", "gold/002", "gold/004", "gold/005"]
    with pytest.raises(DataError, match=r"evaluate\.pairs holds out all its 6 pairs"):
        pairs_of(EffectInfo("gold", "gild it", folder, held_out=7))
