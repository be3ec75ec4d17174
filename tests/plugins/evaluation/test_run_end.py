"""A run measures itself at its end by the same engine; `eval` asks less of a manifest than `run` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cldistill.cli import main as cli
from cldistill.component import BuildContext, Needs, Settings, metric
from cldistill.errors import ManifestError, NotMeasured
from cldistill.manifest.check import check_manifest
from cldistill.protocols import MetricRequest
from cldistill.records import FLOOR, MetricValues
from cldistill.testing.environment import catalogue_with
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import run_manifest, tiny_manifest


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


COUNT = metric("count", "", NoOptions, lambda settings: Needs(), lambda settings, context: count)
ABSENT = metric("absent", "", NoOptions, lambda settings: Needs(), absent)
PACKAGELESS = metric("packageless", "", NoOptions, lambda settings: Needs(packages=("no_such_package",)), absent)


def test_a_run_reports_what_it_could_not_measure(tmp_path: Path) -> None:
    images = str(write_pictures(tmp_path / "held-out"))
    evaluate = {"images": images, "pictures": 2, "teacher_steps": 3, "metrics": [{"use": "count"}, {"use": "absent"}]}
    done = run_manifest(tmp_path, catalogue_with(COUNT, ABSENT), steps=1, evaluate=evaluate)
    report = json.loads((done.folder / "report.json").read_text())
    assert list(report["systems"]) == ["base", "teacher@3", "teacher@4", "student@4"]
    assert report["systems"]["student@4"]["mean"] == {"one": 1.0}
    assert report["not_measured"] == {"absent": "no weights"}
    values = json.loads((done.folder / "per_picture.json").read_text())["values"]
    assert values["teacher@3"]["invert"]["one"] == [1.0, 1.0]
    assert "floor" not in values


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
    check_manifest(write(evaluate=evaluate), catalogue=catalogue)  # it is there to be evaluated
    slots = {"student": {"init": str(tmp_path / "gone.safetensors"), "rank": 2}}
    with pytest.raises(ManifestError, match="gone"):
        check_manifest(write(evaluate=evaluate, slots=slots), catalogue=catalogue)
    check_manifest(str(file), catalogue=catalogue, measuring=True)  # nothing is trained from it


def test_the_command(tmp_path: Path, tiny_manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = str(write_pictures(tmp_path / "held-out", size=(64, 64)))
    evaluate: dict[str, Any] = {"images": images, "pictures": 1}
    evaluate["systems"] = [{"name": "bare", "adapter": None, "steps": 1}]
    # Installed, and without weights here.
    evaluate["metrics"] = [{"use": "clip", "options": {"model": str(tmp_path / "no-weights")}}]
    manifest = str(tiny_manifest(evaluate=evaluate))
    done = CliRunner().invoke(cli.app, ["eval", manifest, "--output", "out", "--set", "evaluate.seed=7"])
    assert done.exit_code == 0, done.output
    assert "report.html" in done.output
    assert "Not measured: clip: " in done.output
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["seed"] == 7
    assert report["metrics"] == {}
    assert [entry["component"] for entry in report["not_measured"]] == ["clip"]
    assert (tmp_path / "out/pictures/bare/mirror/000.webp").is_file()
    refused = CliRunner().invoke(cli.app, ["eval", str(tiny_manifest(evaluate=None))])
    assert isinstance(refused.exception, ManifestError)
    assert "`evaluate:`" in str(refused.exception)


def test_general_instructions_are_thinned_evenly_and_a_run_measures_the_same_ones(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "held-out", 3)
    rows = [{"image": f"{index % 3:03d}.png", "instruction": f"make it {index}"} for index in range(7)]
    (images / "told.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    told = {"images": str(images), "pictures": 1, "teacher_steps": 2, "metrics": [{"use": "count"}],
            "general": str(images / "told.jsonl"), "general_pictures": 3}  # fmt: skip
    done = run_manifest(tmp_path, catalogue_with(COUNT), steps=1, evaluate=told)
    shown = json.loads((done.folder / "per_picture.json").read_text())["pictures"]["general"]
    assert shown == ["general/000001", "general/000003", "general/000005"]
