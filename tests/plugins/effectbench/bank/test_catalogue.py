"""The catalogue of 180 effects: what the issue asks of it, and that every effect can be made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cldistill_plugins.effectbench.bank import EffectError, EffectRecord, apply_effect, bank_of, catalogue, knows, named
from cldistill_plugins.effectbench.bank.__main__ import main
from cldistill_plugins.effectbench.bank.catalogue import settings
from cldistill_plugins.effectbench.bank.fetched import FOLDER_VARIABLE, embedded_pictures, fetched, is_photo

MADE = [effect for effect in bank_of(180) if "painting" not in effect.name]


def picture() -> np.ndarray:
    across = np.linspace(0, 255, 128)
    rows = np.stack([np.tile(across, (128, 1)), np.tile(across[:, None], (1, 128)), np.full((128, 128), 90.0)], axis=2)
    rows[40:90, 30:80] = (230, 40, 60)
    return rows.astype(np.uint8)


@pytest.mark.parametrize(
    ("fifty", "neural"), [(list(catalogue().values())[:50], 15), (bank_of(50), 8)], ids=["catalogue", "bank"]
)
def test_fifty_effects_are_of_many_kinds(fifty: list[EffectRecord], neural: int) -> None:
    """Of the neural styles that were tried a quarter was admitted, so the bank has fewer of them."""
    kinds = Counter(type(effect.recipe).__name__ for effect in fifty)
    assert kinds["NeuralStyle"] >= neural and kinds["GmicCommand"] >= 15 and kinds["ColourFilter"] >= 4
    assert sum(effect.stochastic for effect in fifty) >= 15
    prompts = Counter(effect.prompt for effect in fifty)
    assert sum(count for count in prompts.values() if count > 1) >= 20  # colliding, as people's prompts are


def test_banks_are_nested_and_every_entry_has_a_licence() -> None:
    names = [effect.name for effect in bank_of(180)]
    assert len(set(names)) == 180
    for size in settings()["sizes"]:
        assert [effect.name for effect in bank_of(size)] == names[:size]
    assert {next(iter(entry["recipe"])) for entry in settings()["effects"]} <= set(settings()["licences"])


@pytest.mark.slow
@pytest.mark.parametrize("effect", MADE, ids=lambda effect: effect.name)
def test_every_effect_changes_the_picture_and_is_stochastic_where_it_says_so(effect) -> None:  # type: ignore[no-untyped-def]
    source = picture()
    first, second = apply_effect(effect, source, 1), apply_effect(effect, source, 2)
    assert first.shape == source.shape
    assert np.abs(first.astype(int) - source).mean() > 1.0
    assert (first != second).any() == effect.stochastic
    assert (apply_effect(effect, source, 1) == first).all()


def test_names_are_found_in_both_banks_and_unknown_ones_get_the_nearest() -> None:
    assert knows("halftone")
    assert knows("jungle-weave")
    assert not knows("jungle-weeve")
    with pytest.raises(EffectError, match="jungle-weave"):
        named("jungle-weeve")
    with pytest.raises(EffectError, match="180"):
        bank_of(181)
    assert len(catalogue()) == 180


@pytest.mark.slow
def test_the_command_writes_pairs_and_a_list_for_the_manifest(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--effects", "2", "--pairs", "2", "--processes", "1"]) == 0
    listed = yaml.safe_load((tmp_path / "effects-2.yaml").read_text())
    assert [entry["name"] for entry in listed] == [effect.name for effect in bank_of(2)]
    for entry in listed:
        assert len(list((tmp_path / entry["pairs"] / "source").iterdir())) == 2
        assert len(list((tmp_path / entry["pairs"] / "target").iterdir())) == 2


def test_paintings_that_were_not_fetched_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(EffectError, match=r"bank\.fetched"):
        fetched("paintings")


def test_pictures_are_cut_out_of_a_resource_file_and_photos_told_from_drawings(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (220, 220, 3), dtype=np.uint8))
    flat = Image.new("RGB", (220, 220), "orange")
    parts = []
    for image, kind in ((noise, "webp"), (flat, "jpeg"), (flat.resize((50, 50)), "webp")):
        image.save(tmp_path / f"x.{kind}")
        parts.append((tmp_path / f"x.{kind}").read_bytes())
    found = list(embedded_pictures(b"head" + b"filler".join(parts) + b"RIFFtail"))
    assert [(p.size, is_photo(p)) for p in found] == [((220, 220), True), ((220, 220), False)]
