"""The example's own tests: the kit's check, and a run from manifest to collection."""

from __future__ import annotations

from pathlib import Path

from pixel_kontext import plugin
from pixel_kontext.description import PixelKontextSettings

from cldistill.collection import Collection
from cldistill.collection.index import read_index
from cldistill.component import BuildContext
from cldistill.testing import catalogue_with, check_base_model, picture, run_manifest

(PIXEL_KONTEXT,) = plugin.register_base_models()


def test_it_conforms() -> None:
    check_base_model(PIXEL_KONTEXT, {"layers": 2, "seed": 1})


def test_a_run_trains_a_collection_that_the_base_takes(tmp_path: Path) -> None:
    done = run_manifest(tmp_path, catalogue_with(plugin), steps=6, base={"use": "pixel-kontext"})
    assert len(done.losses("tiny-flow")) == 6
    assert done.collection is not None
    context = BuildContext(tmp_path, tmp_path / "cache", tmp_path / "again")
    base = plugin.build(PixelKontextSettings.model_validate({}), context)
    collection = Collection(read_index(done.collection), base)
    made = collection.generate(picture(1), "invert", seed=7)
    assert made.tobytes() == collection.generate(picture(1), "invert", seed=7).tobytes()
    assert made.tobytes() != collection.generate(picture(1), "soften", seed=7).tobytes()
