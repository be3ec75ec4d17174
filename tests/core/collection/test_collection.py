"""A collection in three lines, its errors, and pictures of any kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cldistill.collection.collection import Collection, at_aspect
from cldistill.collection.index import read_index
from cldistill.errors import AdapterFormatError, CollectionError, DataError
from cldistill.testing.tiny import tiny_pipeline

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def collection(exported_once: Path, pipeline: Path) -> Collection:
    """Loaded once: making pictures leaves it as it was."""
    return Collection.load(exported_once, base=str(pipeline), device="cpu")


@pytest.mark.slow
def test_three_lines(collection: Collection, photo: Image.Image) -> None:
    picture = collection.generate(photo, "manga-tone", seed=7)
    assert [effect.name for effect in collection.effects] == ["manga-tone", "gold-frame"]
    assert np.array_equal(picture, collection.generate(photo, "manga-tone", seed=7))
    assert not np.array_equal(picture, collection.generate(photo, "manga-tone", seed=8))
    assert not np.array_equal(picture, collection.generate(photo, "gold-frame", seed=7))
    assert not np.array_equal(picture, collection.generate(photo, "manga-tone", seed=7, steps=2))


@pytest.mark.slow
def test_the_adapter_matters_and_the_header_rules_the_base(exported: Path, pipeline: Path, photo: Image.Image) -> None:
    collection = Collection.load(exported, base=str(pipeline), device="cpu")  # its own, which is changed below
    assert collection.base.resolution == 64
    mounted = np.asarray(collection.generate(photo, "manga-tone"), float)
    collection._slots.mount(None)
    assert np.abs(mounted - np.asarray(collection.generate(photo, "manga-tone"), float)).max() > 5


@pytest.mark.slow
def test_the_weights_file_alone_is_enough(exported: Path, pipeline: Path, tmp_path: Path, photo: Image.Image) -> None:
    alone = Path(shutil.copy(exported / WEIGHTS, tmp_path / "mine.safetensors"))
    ours = Collection.load(alone, base=str(pipeline), device="cpu").generate(photo, "gold-frame")
    assert np.array_equal(
        ours, Collection.load(exported, base=str(pipeline), device="cpu").generate(photo, "gold-frame")
    )


def test_two_effects_are_composed_as_in_the_paper(exported: Path) -> None:
    index = read_index(exported)
    assert index.prompt(["manga-tone"]) == "vexo manga drawing with screen tone"
    assert index.prompt(["manga-tone", "gold-frame"]) == (
        "Please apply vexo manga drawing with screen tone to the input image, "
        "and then apply kuli gold frame | around the picture."
    )


def test_unknown_effects_get_the_nearest_name(collection: Collection, photo: Image.Image) -> None:
    with pytest.raises(CollectionError, match=r"no effect 'manga-ton'; did you mean 'manga-tone'\?"):
        collection.generate(photo, "manga-ton")
    with pytest.raises(CollectionError, match="name at least one effect"):
        collection.generate(photo, [])
    with pytest.raises(CollectionError, match="steps must be at least 1"):
        collection.generate(photo, "manga-tone", steps=0)


@pytest.mark.parametrize(
    "mode",
    ["RGBA", "L", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("RGB", "P", "LA", "1", "CMYK", "I;16"))],
)
def test_any_mode(collection: Collection, photo: Image.Image, tmp_path: Path, mode: str) -> None:
    given = Image.new("I;16", (90, 70), 30000) if mode == "I;16" else photo.convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    given.save(path)
    assert collection.generate(path, "manga-tone", steps=1).mode == "RGB"


@pytest.mark.parametrize(
    "size", [(90, 70), (1, 1), *(pytest.param(s, marks=pytest.mark.slow) for s in ((33, 200), (500, 41)))]
)
def test_any_size_keeps_its_aspect(collection: Collection, size: tuple[int, int]) -> None:
    picture = collection.generate(Image.new("RGB", size, "red"), "manga-tone", steps=1)
    assert abs(picture.width / picture.height / (size[0] / size[1]) - 1) < 0.07


@pytest.mark.slow
def test_exif_rotation_is_applied(collection: Collection, photo: Image.Image, tmp_path: Path) -> None:
    turned, exif = photo.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(
        collection.generate(tmp_path / "turned.png", "manga-tone", steps=1),
        collection.generate(photo, "manga-tone", steps=1),
    )


def test_several_references(collection: Collection, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    wide = Image.new("RGB", (160, 80), "blue")
    picture = collection.generate([tmp_path / "a.png", wide], "manga-tone", steps=1)
    assert picture.width == 2 * picture.height


def test_missing_pictures_are_named(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: no such picture"):
        collection.generate(tmp_path / "gone.png", "manga-tone")


def test_a_local_base_must_be_named(exported: Path) -> None:
    with pytest.raises(
        CollectionError, match=r"made on the local base model 'tiny'; say where it lies \(--base FOLDER"
    ):
        Collection.load(exported)


def test_options_override_the_header(exported: Path, pipeline: Path, photo: Image.Image) -> None:
    changed = Collection.load(exported, base=str(pipeline), device="cpu", options={"resolution": 96})
    assert changed.generate(photo, "manga-tone", steps=1).size[0] > 90
    with pytest.raises(CollectionError, match="options of the base 'qwen-image-edit': resolutoin"):
        Collection.load(exported, base=str(pipeline), options={"resolutoin": 96})


def test_another_base_is_refused(exported: Path, tmp_path: Path) -> None:
    small = tiny_pipeline(tmp_path / "one-layer", num_layers=1)
    with pytest.raises(CollectionError, match="was made on another base"):
        Collection.load(exported, base=str(small), device="cpu")
    with pytest.raises(AdapterFormatError, match="not in the base"):
        Collection.load(exported, base=str(small), device="cpu", options={"dtype": "float32"})


def test_what_is_no_collection(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no such collection"):
        read_index(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CollectionError, match="holds no pytorch_lora_weights"):
        read_index(tmp_path / "empty")
    tensors = load_file(exported / WEIGHTS)
    with safe_open(exported / WEIGHTS, "pt") as file:
        header = file.metadata()
    plain = {key: value for key, value in header.items() if not key.startswith("cldistill.")}
    for change, message in (
        (plain, "is an adapter but no collection"),
        (header | {"cldistill.format": "9"}, "has collection format 9, this cldistill reads 1"),
        (header | {"cldistill.steps": "many"}, "its header is damaged"),
        (header | {"cldistill.effects": json.dumps([{"nme": "x"}])}, "its header is damaged"),
    ):
        save_file(tensors, tmp_path / "other.safetensors", change)
        with pytest.raises(CollectionError, match=message):
            read_index(tmp_path / "other.safetensors")


def test_aspects() -> None:
    picture = Image.new("RGB", (160, 96))
    assert at_aspect(picture, Image.new("RGB", (500, 300))) is picture
    assert at_aspect(picture, Image.new("RGB", (300, 200))).size == (152, 101)
