"""The command on a whole run of the tiny pipeline: JSON with its provenance, and plots that can be read."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from cldistill.manifest.check import check_manifest
from cldistill.runner import execute
from cldistill_plugins.effectbench.figures.__main__ import app, main, named
from cldistill_plugins.effectbench.figures.draw_bounds import draw_bounds
from cldistill_plugins.effectbench.figures.draw_curves import draw_curves
from cldistill_plugins.effectbench.figures.draw_vanishing import draw_vanishing


def plain(figure: Figure) -> list[Any]:
    """The visible panels of a figure."""
    return [axes for axes in figure.axes if axes.get_visible()]


@pytest.mark.slow(8)
def test_from_a_run_to_its_figures(tmp_path: Path, tiny_manifest: Callable[..., Path]) -> None:
    run, out, quality = tmp_path / "run", tmp_path / "out", tmp_path / "quality.json"
    execute(check_manifest(str(tiny_manifest())), run, Console(file=io.StringIO()), "")
    quality.write_text(json.dumps({"name": "tiny", "metric": "distance", "points": [[2, 0.4], [6, 0.3]]}))
    words = [str(run), "-o", str(out), "--curves", f"tiny={run}", "--evaluation", str(quality)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output

    data = json.loads((out / "figures.json").read_text())
    assert data["format"] == 1 and data["seed"] == 1 and data["machine"]["cores"] and "matplotlib" in data["versions"]
    assert data["run"]["step"] == 6 and data["run"]["weights"] == "raw" and data["run"]["notes"] == []
    four, five, nine = (data[f"figure{number}"] for number in (4, 5, 9))
    assert four["effects"] == ["darker", "mirror"] and len(four["values"]["ts"]["high"]["normalised"]) == len(four["t"])
    assert len(five["cosine"]["high"]) == len(five["t_gen"]) == 4 and five["energy"][0]["n"] == 2
    assert len(four["per_effect"]["bs"]["latent"]["difference"]["mirror"]) == len(four["t"])
    assert [chart["title"] for chart in nine][-1] == "distance"
    for number in (4, 5, 9):
        with Image.open(out / f"figure-{number}.png") as picture:
            assert picture.width >= 1500 and picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)

    for figure in (draw_vanishing(four), draw_bounds(five), draw_curves(nine)):
        assert all(axes.get_title() or axes.get_xlabel() for axes in plain(figure))
    assert [len(axes.lines) for axes in draw_vanishing(four).axes] == [3, 3, 5, 5]  # curves and the bound
    (left, _, right) = draw_bounds(five).axes
    assert len(left.texts) == 4 * 8 and len(left.patches) == 1 and "dB" in right.get_xlabel()
    assert {axes.get_ylabel() for axes in plain(draw_curves(nine))} >= {"loss", "seconds a generator step", "distance"}


def test_a_run_without_figures_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["figures", str(tmp_path), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_something_must_be_asked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["-o", str(tmp_path)])
    assert done.exit_code == 2 and "nothing to draw" in done.output
    assert CliRunner().invoke(app, ["-o", str(tmp_path), "--curves", "runs/x"]).exit_code == 2
    assert named("a=b=c") == ("a", Path("b=c"))
