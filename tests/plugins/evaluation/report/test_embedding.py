"""Pictures inside the page: each once, the worst first, as small as asked for."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from cldistill.errors import DataError
from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.cases import cases_of
from cldistill_plugins.evaluation.report.embedding import Embedded, embed, encode
from cldistill_plugins.evaluation.report.record import picture_path, read_evaluation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("embedding") / "evaluation", pictures=3, size=48, failing=0.5)


def embedded(folder: Path, limit: float = 48.0) -> Embedded:
    evaluation = read_evaluation(folder)
    return embed(folder, evaluation, cases_of(evaluation), limit)


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def test_a_picture_stands_where_it_belongs(folder: Path) -> None:
    found = embedded(folder)
    assert (len(found.cases), found.left_out) == (24, 0)
    for case in found.cases:
        for column in ("source", "truth", "base", "ours"):
            place = found.place(column, case.effect, case.key)
            assert place is not None
            with Image.open(picture_path(folder, column, case.effect, case.key)) as own:
                difference = ImageStat.Stat(ImageChops.difference(decoded(found.texts[place]), own.convert("RGB")))
            assert max(difference.mean) < 12, (column, case)  # lossy WebP halves the resolution of colour


def test_no_picture_is_there_twice(folder: Path) -> None:
    found = embedded(folder)
    assert len(set(found.texts)) == len(found.texts)
    # A collapsed output is the source itself, and the sources are shared by all effects.
    assert len(found.texts) < 3 + 3 * 24
    assert len({found.place("source", case.effect, "scene-0") for case in found.cases}) == 1


def test_a_limit_keeps_the_worst_of_every_effect(folder: Path) -> None:
    everything = embedded(folder)
    size = sum(map(len, everything.texts))
    found = embedded(folder, limit=0.5 * size / 1e6)
    assert sum(map(len, found.texts)) <= 0.5 * size
    assert found.left_out == 24 - len(found.cases) > 0
    assert {case.effect for case in found.cases} == {case.effect for case in everything.cases}
    for effect in {case.effect for case in everything.cases}:
        own = [case for case in everything.cases if case.effect == effect]
        kept = [case for case in found.cases if case.effect == effect]
        assert kept == own[: len(kept)]


def test_a_large_picture_is_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), "teal").save(tmp_path / "large.webp")
    assert decoded(encode(tmp_path / "large.webp", side=200)).size == (200, 100)


def test_the_general_pool_has_sources_of_its_own(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "evaluation", ("ink",), pictures=1, size=16, general={"items": ["scene-0"]})
    for column, colour in (("source", "teal"), ("ours", "orange")):
        path = picture_path(folder, column, "general", "scene-0")
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), colour).save(path, lossless=True)
    found = embedded(folder)
    assert picture_path(folder, "source", "general", "scene-0").parent.name == "general"
    own, shared = (found.place("source", pool, "scene-0") for pool in ("general", "ink"))
    assert own is not None and own != shared
    assert decoded(found.texts[own]).getpixel((8, 8)) == pytest.approx((0, 128, 128), abs=6)
    assert found.place("base", "general", "scene-0") is None


def test_a_missing_picture_is_no_mistake_and_a_broken_one_is(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    picture_path(copy, "truth", "ink", "scene-0").unlink()
    assert embedded(copy).place("truth", "ink", "scene-0") is None
    picture_path(copy, "ours", "ink", "scene-0").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"ours/ink/scene-0\.webp cannot be read as a picture"):
        embedded(copy)
