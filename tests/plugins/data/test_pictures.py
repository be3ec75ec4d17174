"""Any picture is read upright and in sRGB, whatever its mode, profile or EXIF."""

from __future__ import annotations

import json
import struct
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from cldistill.data.items import open_picture, unreadable
from cldistill.errors import DataError
from cldistill.storage.files import sampled_digest
from cldistill_plugins.data import opened


def linear_profile(gamma: float, red: tuple[float, float]) -> bytes:
    """Return an ICC profile of three primaries (``red`` in xy) and a gamma, as a camera might embed it."""

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1.0, (1 - x - y) / y])

    white = np.array([0.9642, 1.0, 0.8249])
    columns = np.stack([xyz(*red), xyz(0.265, 0.69), xyz(0.15, 0.06)], axis=1)
    columns = columns * np.linalg.solve(columns, white)

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Wide\0" + b"\0" * 78,
        b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(fixed, white)),
        b"cprt": b"text\0\0\0\0none\0",
    }
    for index, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, columns[:, index]))
        tags[name + b"TRC"] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    body, table, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + b"".join(map(fixed, white))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_profile_is_converted_to_srgb(tmp_path: Path, mode: str) -> None:
    profile = linear_profile(1.0, (0.64, 0.33))
    Image.new("RGB", (4, 4), (51, 51, 51)).convert(mode).save(tmp_path / "x.png", icc_profile=profile)
    # Grey of linear light 51/255: by the formula of sRGB 1.055 * (55/255)^(1/2.4) - 0.055.
    expected = 255 * (1.055 * (51 / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(np.asarray(open_picture(tmp_path / "x.png")) - expected).max() <= 1.5


def test_a_red_of_wide_primaries_is_brighter_in_srgb(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (200, 30, 30)).save(
        tmp_path / "x.jpg", icc_profile=linear_profile(2.2, (0.68, 0.32)), quality=100
    )
    red, green, _ = open_picture(tmp_path / "x.jpg").getpixel((0, 0))
    assert red > 205 and green < 30


def test_srgb_and_broken_profiles_change_no_bit(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, profile in enumerate((srgb, b"no profile", linear_profile(1.0, (0.6, 0.3))[:200])):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", icc_profile=profile)
        assert np.array_equal(np.asarray(open_picture(tmp_path / f"{number}.png")), pixels)


def test_lab_cmyk_deep_and_moving_pictures(tmp_path: Path) -> None:
    grey = Image.new("RGB", (4, 4), (119, 119, 119))
    lab = ImageCms.profileToProfile(
        grey, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    grey.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    Image.fromarray(np.full((4, 4), 119 * 257, dtype=np.uint16)).save(tmp_path / "deep.png")
    grey.save(tmp_path / "moving.webp", save_all=True, append_images=[Image.new("RGB", (4, 4), "red")], lossless=True)
    for name in ("lab.tif", "cmyk.jpg", "deep.png", "moving.webp"):
        assert np.abs(np.asarray(open_picture(tmp_path / name), dtype=int) - 119).max() <= 2, name


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM", b"Exif\0\0" + b"\xff" * 40])
def test_broken_exif_stops_nothing(tmp_path: Path, exif: bytes) -> None:
    data = BytesIO()
    Image.new("RGB", (6, 2), "blue").save(data, "JPEG", exif=exif)
    (tmp_path / "x.jpg").write_bytes(data.getvalue())
    assert open_picture(tmp_path / "x.jpg").size == (6, 2)
    assert unreadable([tmp_path / "x.jpg"]) == []


def test_avif_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (10, 200, 30)).save(tmp_path / "x.avif", quality=95)
    assert np.abs(np.array(open_picture(tmp_path / "x.avif").getpixel((8, 8))) - (10, 200, 30)).max() < 8


@pytest.mark.parametrize(
    ("head", "package"),
    [
        (b"\0\0\0\x18ftypheic", "pillow-heif"),
        (b"\xff\x0a\xfa\x1f", "pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n", "pillow-jxl"),
    ],
)
def test_a_format_of_another_package_names_it_whatever_the_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, package: str
) -> None:
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    (tmp_path / "x.jpg").write_bytes(head + b"\0" * 64)
    with pytest.raises(DataError, match=rf"x\.jpg: is .*pip install {package}"):
        open_picture(tmp_path / "x.jpg")


def test_sound_pictures_are_opened_once_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    assert opened.picture_sizes([tmp_path / "a.png"]) == {tmp_path / "a.png": (5, 4)}
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    monkeypatch.setattr(opened, "open_file", None)
    assert opened.picture_sizes([tmp_path / "b.png"]) == {tmp_path / "b.png": (5, 4)}


@pytest.mark.parametrize("damage", ["null", "5", "[1]", "{", '[["a", 1]]', "[" * 200_000, "\xff"])
def test_a_damaged_note_of_sound_pictures_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(opened, "default_cache", lambda: tmp_path)
    (tmp_path / opened.KNOWN).write_text(damage)
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    assert opened.picture_sizes([tmp_path / "a.png"]) == {tmp_path / "a.png": (5, 4)}
    assert list(json.loads((tmp_path / opened.KNOWN).read_text()).values()) == [[5, 4]]


@pytest.mark.parametrize("size", ["54", [5], [5, -4], [5.0, 4], [True, 4], 5, {"5": 4}])
def test_a_size_that_is_none_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: object) -> None:
    monkeypatch.setattr(opened, "default_cache", lambda: tmp_path)
    Image.new("RGB", (5, 4)).save(tmp_path / "a.png")
    (tmp_path / opened.KNOWN).write_text(json.dumps({sampled_digest(tmp_path / "a.png"): size}))
    assert opened.picture_sizes([tmp_path / "a.png"]) == {tmp_path / "a.png": (5, 4)}
    assert list(json.loads((tmp_path / opened.KNOWN).read_text()).values()) == [[5, 4]]
