"""The pictures that EffectBench tests on: drawn once, from pools that nothing was trained on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cldistill_plugins.effectbench.bank.fetched import FOLDER_VARIABLE
from cldistill_plugins.effectbench.bank.pairs import SOURCES, for_pairs, pictures_in
from cldistill_plugins.effectbench.bank.pictures import main


def photos(folder: Path, count: int) -> Path:
    (folder / "photos").mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index:03d}.png")
    return folder


def test_art_and_photos_are_drawn_the_same_way_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(photos(tmp_path / "fetched", 5)))
    for out in ("a", "b"):
        assert main([str(tmp_path / out), "--art", "3", "--photos", "2"]) == 0
    names = [sorted(path.name for path in (tmp_path / out).iterdir()) for out in ("a", "b")]
    assert names[0] == names[1]
    assert [name.split("-")[0] for name in names[0]] == ["art"] * 3 + ["photo"] * 2
    assert [Image.open(path).size for path in sorted((tmp_path / "a").glob("photo-*"))] == [(256, 256), (320, 192)]
    assert {Image.open(path).size for path in (tmp_path / "a").glob("art-*")} == {(128, 128), (160, 96), (96, 160)}


def test_the_reserve_is_of_the_training_split_and_in_no_pair(tmp_path: Path) -> None:
    assert main([str(tmp_path / "kept"), "--reserve"]) == 0
    pool = pictures_in(Path(str(files(SOURCES[0]).joinpath(SOURCES[1]))))
    kept = {path.name.removeprefix("art-") for path in (tmp_path / "kept").iterdir()}
    assert kept == {path.name for path in pool} - {path.name for path in for_pairs(pool)} and len(kept) == 12


def test_more_than_there_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(photos(tmp_path / "fetched", 1)))
    assert main([str(tmp_path / "a"), "--art", "1", "--photos", "2"]) == 2
    assert "2 photos were asked for, and there are 1" in capsys.readouterr().err
