"""A collection of two effects on the kit's base, whose plugin is found as an installed one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cldistill.testing import picture, plugin_environment, run_manifest


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection that a run of the kit exported: effects ``invert`` and ``soften``, four steps."""
    found = run_manifest(tmp_path_factory.mktemp("tiny-run"), steps=2).collection
    assert found is not None
    return found


@pytest.fixture
def collection(tiny_run: Path) -> Iterator[Path]:
    """That collection, with its base findable."""
    with plugin_environment({}):
        yield tiny_run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two pictures, of different shapes, and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(1, (24, 24)).save(folder / "cat.png")
    picture(2, (36, 24)).save(folder / "dog.jpg")
    (folder / "notes.txt").write_text("no picture")
    return folder
