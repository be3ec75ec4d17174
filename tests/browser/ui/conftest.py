"""The page of a collection of two effects, served in this process on a port of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cldistill.testing import picture, plugin_environment, run_manifest
from cldistill_plugins.ui.command import quiet
from cldistill_plugins.ui.studio import Studio, open_studio

quiet()


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A loaded studio: effects ``invert``, which has a sample, and ``soften``, which has none."""
    # Here and not above: who only collects the tests, or runs others, need not wait seconds for this import.
    pytest.importorskip("gradio", reason="the extra `ui` is not installed")
    folder = tmp_path_factory.mktemp("ui")
    made = run_manifest(folder, steps=2).collection
    assert made is not None
    collection = Path(shutil.copytree(made, folder / "collection"))
    (collection / "samples").mkdir(exist_ok=True)
    picture(7, (24, 24)).save(collection / "samples" / "invert.png")
    with plugin_environment({}):
        found = open_studio(collection, None, "cpu")
        found.load()
        yield found


@pytest.fixture(scope="session")
def address(studio: Studio) -> Iterator[str]:
    """Where the page is served."""
    from cldistill_plugins.ui.serve import serve

    with serve(studio, "127.0.0.1", None, False) as found:
        yield found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture twice as wide as high, whose name is no safe one."""
    path = tmp_path / "my café (1).png"
    picture(3, (48, 24)).save(path)
    return path
