"""The page: it holds the pictures and not a word about the systems."""

from __future__ import annotations

import base64
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from cldistill.errors import DataError
from cldistill.testing.evaluation import scene, write_evaluation
from cldistill_plugins.evaluation.report.record import picture_path
from cldistill_plugins.evaluation.study.key import KEY, PAGE, StudyKey, read_key
from cldistill_plugins.evaluation.study.page import write_study
from cldistill_plugins.evaluation.study.pictures import SIDE, display_size, encode_equally

SYSTEMS = ("quokka", "wombat", "numbat", "bilby")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("page") / "evaluation", systems=SYSTEMS, size=48, failing=0.5)


@pytest.fixture(scope="module")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyKey]:
    output = tmp_path_factory.mktemp("page") / "study"
    return output, write_study(folder, output, sets=10)


def pictures_of(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="text/plain" id="picture-([^"]+)">([^<]+)</script>', page)
    return {name: base64.b64decode(text) for name, text in found}


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="study-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_names_no_system_and_no_file(study: tuple[Path, StudyKey], folder: Path) -> None:
    page = (study[0] / PAGE).read_bytes()
    modules = b"".join(base64.b64decode(found) for found in re.findall(rb"text/javascript;base64,([^\"]+)", page))
    for text in (page.lower(), modules.lower(), *pictures_of(page.decode()).values()):
        for word in (*SYSTEMS, "scene-", "drawn scenes", str(folder).lower(), "old-photo"):
            assert word.encode() not in text, word


def test_only_the_key_says_which_candidate_is_which(study: tuple[Path, StudyKey], folder: Path) -> None:
    output, key = study
    assert read_key(output / KEY) == key == read_key(output)
    pictures = pictures_of((output / PAGE).read_text(encoding="utf-8"))
    for one in key.sets:
        for name, system in one.candidates.items():
            with Image.open(picture_path(folder, system, one.effect, one.picture)) as own:
                assert Image.open(io.BytesIO(pictures[name])).convert("RGB").tobytes() == own.convert("RGB").tobytes()


def test_candidates_of_a_set_have_one_size_and_one_form(study: tuple[Path, StudyKey]) -> None:
    output, key = study
    pictures = pictures_of((output / PAGE).read_text(encoding="utf-8"))
    for one in key.sets:
        files = [pictures[name] for name in one.candidates]
        assert len({len(file) for file in files}) == 1
        opened = [Image.open(io.BytesIO(file)) for file in files]
        assert {(picture.format, picture.size) for picture in opened} == {("WEBP", (48, 48))}
        assert len({tuple(sorted(picture.info)) for picture in opened}) == 1


def test_nothing_in_the_page_stands_in_the_order_of_the_systems(study: tuple[Path, StudyKey]) -> None:
    page = (study[0] / PAGE).read_text(encoding="utf-8")
    sets = data_of(page)["sets"]
    assert all(one["candidates"] == sorted(one["candidates"]) for one in sets)
    blocks = [name for name in pictures_of(page) if any(name in one["candidates"] for one in sets)]
    for one in sets:
        places = [blocks.index(name) for name in one["candidates"]]
        assert all(b - a == 1 for a, b in pairwise(places)), "pictures lie in the order of the tokens"
    assert set(data_of(page)) == {"study", "questions", "sets"}
    assert all(set(one) == {"id", "instruction", "candidates", "example"} for one in sets)


def test_an_example_is_another_picture_of_the_same_effect(study: tuple[Path, StudyKey], folder: Path) -> None:
    output, key = study
    pictures = pictures_of((output / PAGE).read_text(encoding="utf-8"))
    one = key.sets[0]
    other = "scene-0" if one.picture != "scene-0" else "scene-1"
    with Image.open(picture_path(folder, "truth", one.effect, other)) as own:
        shown = Image.open(io.BytesIO(pictures[f"{one.id}-after"])).convert("RGB")
        assert shown.tobytes() == own.convert("RGB").tobytes()


def test_without_examples_and_with_a_title(folder: Path, tmp_path: Path) -> None:
    write_study(folder, tmp_path / "plain", systems=["quokka", "bilby"], sets=2, example=False, title="<Best> one")
    page = (tmp_path / "plain" / PAGE).read_text(encoding="utf-8")
    assert len(pictures_of(page)) == 2 * (1 + 2)
    assert "<title>&lt;Best&gt; one</title>" in page


def test_a_second_study_in_the_same_folder_is_refused(study: tuple[Path, StudyKey], folder: Path) -> None:
    before = (study[0] / KEY).read_bytes()
    with pytest.raises(DataError, match="would make answers to the old page worthless"):
        write_study(folder, study[0], sets=2)
    assert (study[0] / KEY).read_bytes() == before


def test_equal_lengths_for_pictures_that_compress_differently() -> None:
    sharp = scene(0, 400)
    blurred = sharp.filter(ImageFilter.GaussianBlur(8))
    flat = Image.new("RGB", (200, 200), "teal")
    for size in ((200, 200), (400, 400)):
        files = encode_equally([sharp, blurred, flat], size)
        assert len({len(file) for file in files}) == 1
        assert {Image.open(io.BytesIO(file)).size for file in files} == {size}


def test_large_pictures_are_scaled_down() -> None:
    assert display_size(Image.new("RGB", (2 * SIDE, SIDE))) == (SIDE, SIDE // 2)
    assert display_size(Image.new("RGB", (128, 64))) == (128, 64)
