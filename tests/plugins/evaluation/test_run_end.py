"""A run measures itself at its end by the same engine; `eval` asks less of a manifest than `run` does."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from rich.console import Console
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.component import BuildContext, Needs, Settings, metric
from cldistill.data.items import held_pairs, open_picture
from cldistill.errors import ManifestError, NotMeasured
from cldistill.manifest.check import check_manifest
from cldistill.manifest.rules import blind, unserved
from cldistill.protocols import MetricRequest
from cldistill.records import FLOOR, EffectInfo, MetricValues
from cldistill.testing.environment import catalogue_with
from cldistill.testing.evaluation import write_evaluation
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import run_manifest, tiny_manifest
from cldistill_plugins.effectbench import plugin as effectbench
from cldistill_plugins.evaluation import end_of_run
from cldistill_plugins.evaluation.api import TRUTH, evaluate_manifest, read_evaluation
from cldistill_plugins.evaluation.check import enter
from cldistill_plugins.evaluation.plugin import register_observers
from cldistill_plugins.evaluation.report.cases import cases_of
from cldistill_plugins.evaluation.report.embedding import embed
from cldistill_plugins.evaluation.summary import summary_tables
from cldistill_plugins.evaluators import plugin as evaluators
from cldistill_plugins.samples import sample_grids
from cldistill_plugins.samples.grids import save_grid
from cldistill_plugins.samples.plugin import register_observers as register_sample_grids


class NoOptions(Settings):
    """A metric without options."""


def count(request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
    """Say 1 of every picture, and something of fresh truth."""
    found = {
        system: {pool: MetricValues({"one": [1.0] * len(made)}) for pool, made in pools.items()}
        for system, pools in request.outputs.items()
    }
    return {**found, FLOOR: {request.effects[0].name: MetricValues({"one": [0.0]})}}


def absent(settings: NoOptions, context: BuildContext) -> Callable[..., Any]:
    """Cannot be built."""
    raise NotMeasured("no weights")


class Inverting:
    """The same, and it knows what the effect truly makes of a picture."""

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Say what `count` does."""
        return count(request)

    def truth(self, effect: str, picture: Image.Image, key: str) -> Image.Image:
        """Return the negative."""
        return ImageOps.invert(picture)


INVERTING = metric("count", "", NoOptions, lambda settings: Needs(), lambda settings, context: Inverting())
COUNT = metric("count", "", NoOptions, lambda settings: Needs(), lambda settings, context: count)
ABSENT = metric("absent", "", NoOptions, lambda settings: Needs(), absent)
PACKAGELESS = metric("packageless", "", NoOptions, lambda settings: Needs(packages=("no_such_package",)), absent)


@pytest.mark.slow
def test_a_run_reports_what_it_could_not_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    save = end_of_run.save_grid

    def kept(path: Path, rows: Sequence[Any], titles: Sequence[str], caption: str) -> None:
        drawn.update(rows=rows, titles=titles)
        save(path, rows, titles, caption)

    monkeypatch.setattr(end_of_run, "save_grid", kept)
    images = str(write_pictures(tmp_path / "held-out"))
    evaluate = {"images": images, "pictures": 2, "teacher_steps": 3, "metrics": [{"use": "count"}, {"use": "absent"}]}
    done = run_manifest(tmp_path, catalogue_with(INVERTING, ABSENT, *register_observers()), steps=1, evaluate=evaluate)
    report = json.loads((done.folder / "report.json").read_text())
    assert [system["name"] for system in report["systems"]] == ["base", "teacher@3", "teacher@4", "student@4"]
    assert report["summary"]["student@4"] == {"one": {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}}
    assert report["not_measured"] == [{"component": "absent", "reason": "no weights"}]
    assert report["values"]["teacher@3"]["invert"]["one"] == [1.0, 1.0]
    assert "floor" not in report["values"]
    assert report["floors"]["one"]["mean"] == 0.0
    (title, *_), (row, *_) = drawn["titles"][1:], drawn["rows"]
    assert title == "true effect" and len(row.pictures) == len(drawn["titles"]) == 8
    assert np.array_equal(
        np.asarray(row.pictures[1]), 255 - np.asarray(row.pictures[0].resize((16, 16), Image.Resampling.LANCZOS))
    )


@pytest.mark.slow
def test_the_truth_stands_beside_the_pictures_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held-out pair's, or a metric's: in the grids of the training, in result.png, and in the report."""
    drawn: dict[str, Any] = {}

    def kept(path: Path, rows: Sequence[Any], titles: Sequence[str], caption: str) -> None:
        drawn[path.name] = (rows[0].pictures, titles)
        save_grid(path, rows, titles, caption)

    monkeypatch.setattr(end_of_run, "save_grid", kept)
    monkeypatch.setattr(sample_grids, "save_grid", kept)
    images = str(write_pictures(tmp_path / "held-out"))
    knowing = metric("count", "", NoOptions, lambda settings: Needs(truth=True), lambda settings, context: Inverting())
    evaluate: dict[str, Any] = {"images": images, "pictures": 2, "teacher_steps": 3, "metrics": [{"use": "count"}]}
    parts = {"steps": 1, "samples": {"every": 1, "images": images}}
    observers = (*register_observers(), *register_sample_grids())
    run_manifest(tmp_path, catalogue_with(knowing, *observers), evaluate=evaluate, **parts)
    for pictures, titles in drawn.values():
        assert titles[:2] == ["source", "true effect"]
        assert _is(pictures[1], ImageOps.invert(pictures[0].resize((16, 16), Image.Resampling.LANCZOS)))

    evaluate |= {"pairs": 1, "metrics": []}
    done = run_manifest(tmp_path, catalogue_with(*observers), output=tmp_path / "held", evaluate=evaluate, **parts)
    report = json.loads((done.folder / "report.json").read_text())
    (held,) = held_pairs(EffectInfo("invert", "", tmp_path / "data/invert", held_out=1))
    assert held.target is not None
    for pictures, titles in drawn.values():
        assert titles[:2] == ["source", "true effect"]
        assert _is(pictures[0], open_picture(held.sources[0]))
        assert _is(pictures[1], open_picture(held.target).resize((16, 16), Image.Resampling.LANCZOS))
    assert report["held_pairs"]["invert"] == [f"invert-{held.key.rpartition('/')[2]}"]
    shown = done.folder / "pictures/truth/invert/pairs" / f"{report['held_pairs']['invert'][0]}.webp"
    assert _is(open_picture(shown), open_picture(held.target).resize((16, 16), Image.Resampling.LANCZOS))
    evaluation = read_evaluation(done.folder)
    first = embed(done.folder, evaluation, cases_of(evaluation))
    assert first.cases[0].effect == "invert/pairs"  # the ones of which something is known come first
    assert first.place(TRUTH, "invert/pairs", first.cases[0].key) is not None


def _is(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other.convert("RGB")))


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 100])
def test_no_figure_of_the_tables_at_a_runs_end_is_broken(tmp_path: Path, width: int) -> None:
    """Four systems, and as many metrics as fill several tables; every mean and interval stands on one line."""
    folder = write_evaluation(tmp_path, systems=("base", "teacher@40", "teacher@8", "student@8"), size=16)
    told = json.loads((folder / "report.json").read_text())
    for copy in range(4):
        name = f"distance-{copy}"
        told["metrics"][name] = told["metrics"]["truth_distance"] | {"title": f"distance number {copy} to the truth"}
        for part in (told["summary"], *told["per_effect"].values()):
            for found in part.values():
                found[name] = {"mean": -0.25 * copy, "low": -2.75, "high": -1.25, "n": 3}
        for effects in told["values"].values():
            for found in effects.values():
                found[name] = found["truth_distance"]
    (folder / "report.json").write_text(json.dumps(told))
    screen = Console(file=io.StringIO(), width=width)
    for table in summary_tables(read_evaluation(folder), width):
        screen.print(table)
    lines = [line.rstrip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert all(line.count("[") == line.count("]") for line in lines)
    assert "…" not in "".join(lines)
    place = lines.index(" distance number 3 to the truth ↓")
    assert [line.split() for line in lines[place + 1 : place + 5]] == [
        [f"{name},", evaluations, "evaluations", "−0.750", "[−2.750,", "−1.250]"]
        for name, evaluations in (("Base", "80"), ("Teacher@40", "8"), ("Teacher@8", "8"), ("Student@8", "8"))
    ]
    grey = [place for place, line in enumerate(lines) if line.startswith(" grey ")]
    assert len(grey) == {80: 2, 100: 2}[width]
    means = " ".join(lines[place].removeprefix(" grey ") for place in grey).split()
    assert means[-4:] == ["0.000", "−0.250", "−0.500", "−0.750"] and len(means) == 7
    assert sum(lines[place + 1].count("[") for place in grey) == 6


@pytest.mark.slow
def test_a_run_is_reported_as_an_evaluation_is(tmp_path: Path) -> None:
    images = str(write_pictures(tmp_path / "held-out"))
    told = {"images": images, "pictures": 2, "teacher_steps": 3, "metrics": [{"use": "count"}]}
    done = run_manifest(tmp_path, catalogue_with(COUNT, *register_observers()), steps=1, evaluate=told)
    report = json.loads((done.folder / "report.json").read_text())
    manifest, other = tmp_path / "eval.yaml", tmp_path / "other"
    student = {
        "name": "student@4",
        "title": "one LoRA in 4 steps",
        "adapter": str(done.folder / "collection"),
        "steps": 4,
    }
    manifest.write_text(yaml.safe_dump(tiny_manifest(tmp_path, evaluate=told | {"systems": [student]})))
    checked = check_manifest(str(manifest), catalogue=catalogue_with(COUNT), measuring=True)
    evaluate_manifest(checked, enter(checked), other, Console(file=io.StringIO()), "cldistill eval", "again")
    evaluated = json.loads((other / "report.json").read_text())
    assert {*report} == {*evaluated, "run"}
    assert report["systems"][-1] == evaluated["systems"][0]  # not least the hash of its weights
    for part in ("values", "summary", "per_effect"):
        assert report[part]["student@4"] == evaluated[part]["student@4"]
    picture = Path("pictures", "student@4", "invert", "000.webp")
    assert (done.folder / picture).read_bytes() == (other / picture).read_bytes()
    for file in ("report.md", "report.html", "result.png"):
        assert (done.folder / file).is_file()
    assert read_evaluation(done.folder).command.startswith("cldistill run")
    assert "one" in done.text and "1.000 [1.000, 1.000]" in " ".join(done.text.split())


def test_two_held_out_pictures_of_one_name_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "held-out")
    (images / "000.jpg").write_bytes((images / "000.png").read_bytes())
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(tmp_path, evaluate={"images": str(images)})))
    with pytest.raises(ManifestError, match=r"000\.png: 000\.jpg has the same name"):
        check_manifest(str(file), catalogue=catalogue_with())


def test_a_run_needs_its_metrics_packages_and_an_evaluation_does_not(tmp_path: Path) -> None:
    images = str(write_pictures(tmp_path / "held-out"))
    evaluate: dict[str, Any] = {"images": images, "metrics": [{"use": "packageless"}]}
    file, catalogue = tmp_path / "m.yaml", catalogue_with(PACKAGELESS)

    def write(**parts: Any) -> str:
        file.write_text(yaml.safe_dump(tiny_manifest(tmp_path, **parts)))
        return str(file)

    with pytest.raises(ManifestError, match="no_such_package"):
        check_manifest(write(evaluate=evaluate), catalogue=catalogue)
    check_manifest(str(file), catalogue=catalogue, measuring=True)
    evaluate["systems"] = [{"name": "bare", "adapter": None}]
    later = check_manifest(write(evaluate=evaluate), catalogue=catalogue)  # it is there to be evaluated
    (told,) = (line for line in unserved(later) if "packageless" in line)
    assert told.startswith("warning: the metric packageless will not be measured: needs no_such_package")
    slots = {"student": {"init": str(tmp_path / "gone.safetensors"), "rank": 2}}
    with pytest.raises(ManifestError, match="gone"):
        check_manifest(write(evaluate=evaluate, slots=slots), catalogue=catalogue)
    check_manifest(str(file), catalogue=catalogue, measuring=True)  # nothing is trained from it


def test_what_cannot_be_measured_is_told_by_check_with_its_reason(tmp_path: Path) -> None:
    images = str(write_pictures(tmp_path / "held-out"))
    names = ("clip", "dino", "dreamsim", "editreward", "mllm-judge", "retention", "high-frequency-energy", "likeness")
    metrics: list[dict[str, Any]] = [{"use": name} for name in names]
    metrics[1]["options"] = {"model": str(tmp_path / "no-dino")}
    metrics[2]["options"] = {"folder": str(tmp_path / "no-dreamsim")}
    systems = [{"name": "bare", "adapter": None}]
    evaluate: dict[str, Any] = {"images": images, "metrics": metrics, "systems": systems}
    file = tmp_path / "m.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(tmp_path, evaluate=evaluate)))
    metrics_too = catalogue_with(*evaluators.register_metrics(), *effectbench.register_metrics())
    told = {line.split()[3]: line for line in blind(check_manifest(str(file), catalogue=metrics_too))}
    assert list(told) == [name for name in names if name != "likeness"]  # which needs nothing
    for name, why in (
        ("clip", "open_clip|not in the hub's cache"), ("dino", "no-dino|torchvision"), ("dreamsim", "no-dreamsim|dreamsim,"),
        ("editreward", "a checkout"), ("mllm-judge", "`endpoint` and `model`"), ("retention", "evaluate.general"),
        ("high-frequency-energy", "none of the effects|not installed"),
    ):  # fmt: skip
        assert re.search(why, told[name]), told[name]


@pytest.mark.slow
def test_the_command(tmp_path: Path, tiny_manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = str(write_pictures(tmp_path / "held-out", size=(64, 64)))
    evaluate: dict[str, Any] = {"images": images, "pictures": 1}
    evaluate["systems"] = [{"name": "bare", "adapter": None, "steps": 1}]
    # Installed, and without weights here.
    evaluate["metrics"] = [{"use": "clip", "options": {"model": str(tmp_path / "no-weights")}}]
    manifest = str(tiny_manifest(evaluate=evaluate))
    done = CliRunner().invoke(cli.app, ["eval", manifest, "--output", "out", "--set", "evaluate.seed=7"])
    assert done.exit_code == 1, done.output
    assert "report.html" in done.output
    assert done.output.startswith("warning: the metric clip will not be measured: ")  # before anything is made
    assert "Not measured: clip: " in done.output
    assert done.output.endswith("Nothing was measured: no metric could measure; the pictures are there.\n")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["seed"] == 7
    assert report["metrics"] == {}
    assert [entry["component"] for entry in report["not_measured"]] == ["clip"]
    assert (tmp_path / "out/pictures/bare/mirror/000.webp").is_file()
    refused = CliRunner().invoke(cli.app, ["eval", str(tiny_manifest(evaluate=None))])
    assert isinstance(refused.exception, ManifestError)
    assert "`evaluate:`" in str(refused.exception)


@pytest.mark.slow
def test_general_instructions_are_thinned_evenly_and_a_run_measures_the_same_ones(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "held-out", 3)
    rows = [{"image": f"{index % 3:03d}.png", "instruction": f"make it {index}"} for index in range(7)]
    (images / "told.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    told = {"images": str(images), "pictures": 1, "teacher_steps": 2, "metrics": [{"use": "count"}],
            "general": str(images / "told.jsonl"), "general_pictures": 3}  # fmt: skip
    done = run_manifest(tmp_path, catalogue_with(COUNT, *register_observers()), steps=1, evaluate=told)
    report = json.loads((done.folder / "report.json").read_text())
    assert report["general"]["items"] == ["000001", "000003", "000005"]
    assert list(report["general"]["summary"]) == ["base", "student@4"]  # a teacher is the base there
