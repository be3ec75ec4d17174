"""Two effects at once: which pairs, what each system is told, and what it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from pathlib import Path

import pytest
import torch
import yaml
from PIL.Image import Image

from cldistill import testing
from cldistill.errors import DataError, ManifestError
from cldistill.sampling.image_generator import ImageGenerator, Row, SamplingConfig
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.evaluation.compositions import (
    IN_TURN,
    SUMMED,
    TOGETHER,
    CompositionOrder,
    both,
    compose,
    draw_pairs,
)

torch.set_num_threads(1)


def test_pairs_come_in_both_orders_and_by_the_seed() -> None:
    names = ["gold", "manga", "snow", "lego"]
    pairs = draw_pairs(names, 3, seed=1)
    assert len(set(pairs)) == 6 and {pair.swapped for pair in pairs} == set(pairs)
    assert pairs == draw_pairs(names[::-1], 3, seed=1)
    assert len({tuple(draw_pairs(names, 3, seed)) for seed in range(8)}) > 1
    with pytest.raises(DataError, match="4 effects make only 6"):
        draw_pairs(names, 7, seed=1)


def test_the_papers_words() -> None:
    assert both("gold. ", "snow.") == "Please apply gold to the input image, and then apply snow."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the kit's two effects, with its collection."""
    folder = tmp_path_factory.mktemp("composed")
    testing.run_manifest(folder, testing.catalogue_with(), steps=1)
    shown = testing.write_pictures(folder / "shown", count=3)
    parts = tiny_manifest(folder, 1) | {"evaluate": {"images": str(shown), "teacher_steps": 3}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(parts))
    return folder


def order(folder: Path, **changes: object) -> CompositionOrder:
    given: dict[str, object] = {
        "manifest": str(folder / "manifest.yaml"), "collection": folder / "run/collection", "pairs": 1, "pictures": 2,
        "output": folder, "cache": folder / "cache", "teachers": True,
    }  # fmt: skip
    return CompositionOrder(**(given | changes))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def kit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cldistill.manifest.check.load_catalogue", lambda: testing.catalogue_with())


@pytest.mark.slow
def test_every_system_makes_a_picture_of_every_source(folder: Path) -> None:
    made = compose(order(folder))
    assert made.evaluations == {TOGETHER: 4, IN_TURN: 8, SUMMED: 3}
    assert [path.stem for path in made.sources] == ["000", "001"]
    forth, back = made.pairs
    assert back == forth.swapped
    shown = {}
    for system, outputs in made.outputs.items():
        assert set(outputs) == {forth, back}
        for pair, pictures in outputs.items():
            assert len(pictures) == 2 and pictures[0].tobytes() != pictures[1].tobytes()
            shown[system, pair] = pictures[0].tobytes()
    assert len(set(shown.values())) == 6
    (mirrored,) = made.reconstruct([made.outputs[TOGETHER][forth][0]])
    assert mirrored.tobytes() == shown[TOGETHER, forth]  # the tiny base's VAE is exact
    again = compose(order(folder, teachers=False))
    assert set(again.outputs) == {TOGETHER, IN_TURN}
    assert again.outputs[IN_TURN][back][0].tobytes() == shown[IN_TURN, back]


def test_in_turn_the_second_effect_edits_what_the_first_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str]] = []
    real = ImageGenerator.pictures

    def watch(
        self: ImageGenerator, config: SamplingConfig, rows: Sequence[Row], wanted: Set[int]
    ) -> Iterator[list[tuple[int, Image]]]:
        made = (rows[place] for place in sorted(wanted))
        told.extend((item.key, prompts.student, item.sources[0].parent.name) for item, prompts in made)
        return real(self, config, rows, wanted)

    monkeypatch.setattr(ImageGenerator, "pictures", watch)
    made = compose(order(folder, teachers=False, pictures=1, cache=folder / "another-cache", seed=4))
    single = {name: f"<{name}> {name} the picture" for name in ("invert", "soften")}
    first = [("held-out/000", single[pair.first], "shown") for pair in made.pairs]
    assert told[:2] == [("held-out/000", both(single[p.first], single[p.second]), "shown") for p in made.pairs]
    assert sorted(told[2:4]) == sorted(first)
    for (key, text, place), pair in zip(told[4:], made.pairs, strict=True):
        assert (key, text) == ("held-out-second/000", single[pair.second]) and place != "shown"


def test_effects_that_are_not_known_are_left_out(folder: Path) -> None:
    with pytest.raises(DataError, match="1 effects make only 0"):
        compose(order(folder, knows=lambda name: name == "invert"))


def test_without_held_out_pictures_it_says_so(folder: Path) -> None:
    with pytest.raises(ManifestError, match="evaluate"):
        compose(order(folder, overrides=["evaluate="]))
