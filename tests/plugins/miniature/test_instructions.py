"""The general edits: what each does, that wordings are unambiguous, and that the module stays light."""

import subprocess
import sys

import numpy as np
import pytest

from cldistill_plugins.miniature.instructions import INSTRUCTIONS, Picture


@pytest.fixture
def picture() -> Picture:
    """A smooth picture with no symmetry: colour ramps and one dark square."""
    rows, columns = np.mgrid[0:128, 0:128]
    pixels = np.stack([rows * 2, columns * 2, 255 - rows - columns // 2], axis=-1).clip(0, 255).astype(np.uint8)
    pixels[20:50, 30:60] = 15
    return pixels


@pytest.mark.parametrize("name", list(INSTRUCTIONS))
def test_an_edit_keeps_shape_and_type_and_its_input(name: str, picture: Picture) -> None:
    before = picture.copy()
    edited = INSTRUCTIONS[name].apply(picture)
    assert edited.shape == picture.shape
    assert edited.dtype == np.uint8
    assert np.array_equal(picture, before)
    assert not np.shares_memory(edited, picture)
    changed = float(np.square(edited.astype(float) - picture).mean())
    assert changed == 0 if name == "same" else changed > 100


def test_wordings_name_one_edit_each() -> None:
    wordings = [wording for instruction in INSTRUCTIONS.values() for wording in instruction.wordings]
    assert len(set(wordings)) == len(wordings)
    assert all(len(instruction.wordings) >= 4 for instruction in INSTRUCTIONS.values())


@pytest.mark.parametrize("name", ["mirror", "flip", "invert"])
def test_these_edits_undo_themselves(name: str, picture: Picture) -> None:
    apply = INSTRUCTIONS[name].apply
    assert np.array_equal(apply(apply(picture)), picture)


def test_four_quarter_turns_are_none(picture: Picture) -> None:
    turned = picture
    for _ in range(4):
        turned = INSTRUCTIONS["rotate"].apply(turned)
    assert np.array_equal(turned, picture)
    assert np.array_equal(INSTRUCTIONS["rotate"].apply(picture)[0, -1], picture[0, 0])


def test_strengths(picture: Picture) -> None:
    light = picture.astype(float)
    assert INSTRUCTIONS["darker"].apply(picture).mean() == pytest.approx(0.45 * light.mean(), abs=0.5)
    assert (255.0 - INSTRUCTIONS["brighter"].apply(picture)).mean() == pytest.approx(
        0.5 * (255 - light.mean()), abs=0.5
    )
    grey = INSTRUCTIONS["grey"].apply(picture)
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert set(np.unique(INSTRUCTIONS["posterise"].apply(picture))) <= {0, 255}
    assert INSTRUCTIONS["outline"].apply(np.full_like(picture, 90)).min() == 255


def test_importing_them_loads_no_torch() -> None:
    code = "import sys, cldistill_plugins.miniature.instructions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
