"""Labelled grids: places, odd pictures, long and foreign texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cldistill_plugins.samples.grids import EMPTY, PAPER, GridRow, labelled_grid, save_grid
from cldistill_plugins.samples.lettering import set_text

RED, BLUE = (200, 10, 10), (10, 10, 200)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def boxes(grid: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    mask = Image.new("L", grid.size)
    mask.putdata([255 * (pixel == colour) for pixel in grid.getdata()])
    return mask.getbbox()


def test_pictures_fill_their_cells_in_order() -> None:
    grid = labelled_grid([GridRow("a", [flat(RED), flat(BLUE)])], ["one", "two"], cell=96)
    red, blue = boxes(grid, RED), boxes(grid, BLUE)
    assert red is not None and blue is not None
    assert (red[2] - red[0], red[3] - red[1]) == (96, 96)
    assert (red[1], red[3]) == (blue[1], blue[3]) and red[2] < blue[0]
    assert grid.getpixel((0, 0)) == PAPER


def test_headings_labels_and_caption_are_drawn_outside_the_cells() -> None:
    bare = labelled_grid([GridRow("", [flat(RED)])], [""], cell=96)
    full = labelled_grid([GridRow("manga\nturn it into manga", [flat(RED)])], ["student\n8 steps"], "step 100", cell=96)
    assert full.width > bare.width and full.height > bare.height
    inner, outer = boxes(full, RED), boxes(bare, RED)
    assert inner is not None and outer is not None
    assert inner[0] > outer[0] and inner[1] > outer[1]
    left = full.crop((0, inner[1], inner[0], inner[3])).convert("L").getextrema()
    head = full.crop((inner[0], 0, inner[2], inner[1])).convert("L").getextrema()
    foot = full.crop((0, inner[3], full.width, full.height)).convert("L").getextrema()
    assert all(darkest < 160 for darkest, _ in (left, head, foot))  # type: ignore[operator]


def test_aspect_is_kept_and_gaps_are_pale() -> None:
    wide = labelled_grid([GridRow("", [flat(RED, (200, 100)), None])], ["", ""], cell=100)
    box = boxes(wide, RED)
    assert box is not None and (box[2] - box[0], box[3] - box[1]) == (100, 50)
    assert wide.getpixel((box[2] + 54, box[1] + 25)) == EMPTY


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_any_mode_works(mode: str) -> None:
    grid = labelled_grid([GridRow("a", [flat(RED).convert(mode)])], ["x"], cell=64)
    assert grid.mode == "RGB"


def test_transparent_pictures_show_the_paper() -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    grid = labelled_grid([GridRow("", [clear])], [""], cell=64)
    assert grid.getpixel((grid.width // 2, grid.height // 2)) == PAPER


def test_the_number_of_pictures_is_checked() -> None:
    with pytest.raises(ValueError, match="row 'a' has 1 pictures for 2 columns"):
        labelled_grid([GridRow("a", [flat(RED)])], ["x", "y"])


def test_save_is_whole_and_repeatable(tmp_path: Path) -> None:
    rows = [GridRow("a", [flat(RED)])]
    first = save_grid(tmp_path / "samples" / "step-000100.png", rows, ["x"], "caption")
    second = save_grid(tmp_path / "again.png", rows, ["x"], "caption")
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == ["step-000100.png"]


def test_text_shrinks_then_wraps_within_its_width() -> None:
    short, long = set_text("student", 96), set_text("a title far too long for its column", 96)
    assert len(short.lines) == 1 and len(long.lines) > 1
    assert long.lines[0].size < short.lines[0].size
    word = set_text("\nDonaudampfschifffahrtsgesellschaft", 60)
    assert len(word.lines) > 1 and word.width <= 61
    assert "".join(line.text for line in word.lines) == "Donaudampfschifffahrtsgesellschaft"


def test_text_is_cut_at_its_height() -> None:
    block = set_text("title\n" + "word " * 100, 100, height=64)
    assert block.height <= 64 and block.lines[0].text == "title"


def test_unknown_letters_do_not_become_boxes() -> None:
    assert set_text("40 steps × 2 – no", 400).lines[0].text == "40 steps x 2 - no"
    drawn = set_text("manga \U0010fffd", 400).lines[0].text
    assert drawn == "manga ?"
