"""The pictures that EffectBench tests on: drawn once, from pools that nothing was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cldistill_plugins.effectbench.bank.fetched import FOLDER_VARIABLE
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
    assert {Image.open(path).size for path in (tmp_path / "a").glob("photo-*")} == {(256, 256)}


def test_more_than_there_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(photos(tmp_path / "fetched", 1)))
    assert main([str(tmp_path / "a"), "--art", "1", "--photos", "2"]) == 2
    assert "2 photos were asked for, and there are 1" in capsys.readouterr().err
