"""``cldistill generate``: several effects and pictures, and what is refused before the model is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.collection.collection import Collection
from cldistill.runner import generate_command


def generate(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["generate", *map(str, words)])


@pytest.fixture
def pictures(photo: Image.Image, tmp_path: Path) -> list[Path]:
    """Two pictures on the disk."""
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    photo.save(paths[0])
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(paths[1])
    return paths


@pytest.mark.slow
def test_two_effects_and_two_pictures(exported: Path, pipeline: Path, pictures: list[Path], tmp_path: Path) -> None:
    effects, out = ["manga-tone", "gold-frame"], tmp_path / "out.png"
    options = [word for effect in effects for word in ("--effect", effect)]
    options += [word for path in pictures for word in ("--image", path)]
    done = generate(exported, "--base", pipeline, *options, "-o", out, "--seed", 3, "--steps", 2, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert done.output.strip().endswith("out.png")
    collection = Collection.load(exported, base=str(pipeline), device="cpu")
    made = np.asarray(Image.open(out))
    assert np.array_equal(made, collection.generate(pictures, effects, seed=3, steps=2))
    assert not np.array_equal(made, collection.generate(pictures, effects[0], seed=3, steps=2))
    assert not np.array_equal(made, collection.generate(pictures[:1], effects, seed=3, steps=2))


@pytest.mark.parametrize("name", ["out", "out.pgn", "out.txt", "out.psd"])
def test_a_name_that_no_picture_can_have_is_refused_before_the_work(
    name: str, exported: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collection, "load", lambda *args, **options: pytest.fail("loaded a model"))
    done = generate(exported, "-i", pictures[0], "-e", "manga-tone", "-o", tmp_path / name)
    assert done.exit_code == 2
    assert ".webp" in done.output  # the box around it wraps the sentence somewhere


@pytest.mark.slow
def test_the_printed_command_names_a_local_base(
    make: Callable[..., Any], pipeline: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    folder = make().export(tmp_path / "a collection")
    settings = SimpleNamespace(model=str(pipeline))
    run = SimpleNamespace(effects=[SimpleNamespace(name="manga-tone")])
    (tmp_path / "held-out").mkdir()
    held_out = pictures[0].rename(tmp_path / "held-out" / "one.png")
    manifest = SimpleNamespace(evaluate=None, samples=SimpleNamespace(images=tmp_path / "held-out"))
    checked = SimpleNamespace(base=SimpleNamespace(settings=settings), manifest=manifest, items={})
    exported = SimpleNamespace(collection=folder, checked=checked)
    words = shlex.split(generate_command(cast(Any, run), cast(Any, exported)))
    assert words[:2] == ["cldistill", "generate"]
    assert words[words.index("--base") + 1] == str(pipeline)
    assert words[words.index("--image") + 1] == str(held_out)
    words[words.index("out.png")] = str(tmp_path / "made.png")
    assert generate(*words[2:], "--steps", 1, "--device", "cpu").exit_code == 0
    settings.model = "Qwen/Qwen-Image-Edit-2509"
    assert "--base" not in generate_command(cast(Any, run), cast(Any, exported))
