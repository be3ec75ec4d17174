"""The page without a browser: what is said without gradio, what a stranger's names can do, and what is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.collection.index import CollectionEffect
from cldistill.errors import CollectionError, PluginLoadError
from cldistill.testing.runs import run_manifest
from cldistill_plugins.generation.api import Edit
from cldistill_plugins.ui import command
from cldistill_plugins.ui.result import render_result, render_words
from cldistill_plugins.ui.studio import Made, Studio, open_studio

HOSTILE = '../<img src=x onerror="alert(1)">'


class Grey:
    """In place of a loaded collection: makes a grey picture of the size of what it is given."""

    def edit(self, edit: Edit, pictures: Any, seed: int, steps: int | None) -> Image.Image:
        return Image.new("RGB", pictures[-1].size, (90, 90, 90))


def studio(folder: Path) -> Studio:
    effect = CollectionEffect(HOSTILE, "", "a prompt")
    return Studio(folder, HOSTILE, (effect,), {}, 4, Grey(), False)  # type: ignore[arg-type]


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(PluginLoadError, match=r"pip install 'cldistill\[ui\]'"):
        command.ui("anything")


def test_names_are_text_on_the_page_and_stay_in_the_folder(tmp_path: Path) -> None:
    found, photo = studio(tmp_path), tmp_path / '"><b>.png'
    Image.new("RGB", (8, 4)).save(photo)
    before = found.source(photo, photo.name)
    (made,) = found.make(photo, photo.name, [Edit((HOSTILE,), tmp_path)], 7, 4)
    assert found.folder in before.parents and made.file.parent.parent == found.folder
    page = render_result(before, [made], [HOSTILE], 7, 4)
    assert "onerror" in page and "<img src=x" not in page and "<b>.png" not in page
    assert "<script" not in render_words("<script>alert(1)</script>")
    found.close()
    assert not found.folder.exists()


def test_what_is_under_way_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    made = Made("soften", tmp_path / "a.png")
    words = ["soften", "invert+soften"]
    assert "Making soften (1 of 2) …" in render_result(tmp_path / "a.png", [], words, 0, 4)
    second = render_result(tmp_path / "a.png", [made], words, 0, 4)
    assert "Making invert + soften (2 of 2) …" in second and "8 × 4 · 4 steps · seed 0" in second
    assert 'role="tablist"' not in second  # one picture needs no tabs
    assert "The picture is ready." in render_result(tmp_path / "a.png", [made], ["soften"], 0, 4)


def test_a_folder_that_is_no_collection_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="no such collection"):
        open_studio(tmp_path / "nowhere", None, None)


def test_a_port_that_is_none_is_refused_before_a_model_is_loaded() -> None:
    done = CliRunner().invoke(app, ["ui", "nowhere", "--port", "99999"])
    assert done.exit_code == 2 and "65535" in done.output


@pytest.mark.slow
def test_a_picture_that_cannot_be_kept_is_a_sentence_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from cldistill_plugins.ui.page import edit

    Image.new("RGB", (8, 4)).save(tmp_path / "a.png")
    collection = run_manifest(tmp_path, steps=2).collection
    assert collection is not None
    found = open_studio(collection, None, None)
    found.close()  # its folder is gone
    (said,) = edit(found, str(tmp_path / "a.png"), [found.effects[0].name], False, 4, 0)
    assert "The picture cannot be kept: No such file or directory." in said and 'role="alert"' in said
