"""The shipped recipes check; the quickstart, cut to a few steps, leaves everything that a user is promised."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.manifest.check import check_manifest
from cldistill.records import EffectInfo

CUT = {
    "train.generator_steps": 4,
    "train.batch_size": 2,
    "train.checkpoint_every": 2,
    "router.options.mixed_until": 2,
    "losses.1.from_step": 2,
    "losses.2.from_step": 2,
    "losses.3.from_step": 2,
    "slots.student.lr": 1e-3,
    "slots.critic.from_step": 2,
    "targets.steps": 1,
    "samples.every": 4,
    "evaluate.pictures": 1,
    "evaluate.teacher_steps": 2,
    "evaluate.metrics.0.options.draws": 2,
    "evaluate.metrics.1.options.draws": 2,
}


def test_the_quickstart_fits_together() -> None:
    checked = check_manifest("quickstart")
    assert len(checked.effects) == 6
    assert {loss.loss.name for loss in checked.losses} == {"bs-dmd", "ts-dmd", "ta-fm", "fake-score"}
    full_steps = checked.manifest.train.generator_steps - checked.losses[1].from_step
    assert full_steps >= 60
    held_out = {p.name for p in checked.manifest.evaluate.images.iterdir()} if checked.manifest.evaluate else set()
    assert len([name for name in held_out if name.endswith(".png")]) >= 32


def test_no_held_out_picture_is_trained_on() -> None:
    checked = check_manifest("quickstart")
    assert checked.manifest.evaluate is not None
    held_out = {p.read_bytes() for p in checked.manifest.evaluate.images.glob("*.png")}
    trained = {path for items in checked.items.values() for item in items for path in item.sources}
    assert trained
    assert not any(path.read_bytes() in held_out for path in trained)


def first_lines(name: str, count: int, folder: Path) -> Path:
    """Write the first entries of one of the miniature's lists to ``folder``, their files named in full."""
    shipped = Path(str(files("cldistill_plugins.miniature"))) / "general"
    entries = [json.loads(line) for line in (shipped / name).read_text().splitlines()[:count]]
    for entry in entries:
        entry |= {key: str((shipped / entry[key]).resolve()) for key in ("image", "target") if key in entry}
    (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder / name


def first_pairs(effect: EffectInfo, count: int, folder: Path) -> Path:
    """Copy the first pairs of an effect to a folder of its name below ``folder``."""
    assert effect.pairs is not None
    for side in ("source", "target"):
        (folder / effect.name / side).mkdir(parents=True)
        for file in sorted((effect.pairs / side).iterdir())[:count]:
            shutil.copy(file, folder / effect.name / side)
    return folder / effect.name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A quickstart of four steps on a few of its pairs and general instructions, and what it printed."""
    output = tmp_path_factory.mktemp("quickstart") / "out"
    cut = CUT | {
        "general.instructions": first_lines("general.jsonl", 8, output.parent),
        "evaluate.general": first_lines("general-held-out.jsonl", 4, output.parent),
    }
    for effect in check_manifest("quickstart").effects:
        cut[f"effects.{effect.name}.pairs"] = first_pairs(effect, 4, output.parent)
    settings = [word for key, value in cut.items() for word in ("--set", f"{key}={value}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLDISTILL_CACHE", str(output.parent / "cache"))
        patch.setenv("COLUMNS", "200")
        result = CliRunner().invoke(app, ["run", "quickstart", "--output", str(output), *settings])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return output, result.output


@pytest.mark.slow(31)
def test_the_report_holds_every_figure(finished: tuple[Path, str]) -> None:
    report = json.loads((finished[0] / "report.json").read_text())
    figures = {"seconds", "peak_memory_mb", "generator_steps", "forwards"}
    assert figures <= set(report["run"])
    assert report["run"]["generator_steps"] == 4
    systems = {system["name"]: system for system in report["systems"]}
    assert list(systems) == ["base", "teacher@2", "teacher@8", "student@8"]
    mean, effects = report["summary"]["student@8"], report["per_effect"]["student@8"]
    assert len(effects) == 6
    for values in (*effects.values(), mean):
        assert {"closeness", "nearest_is_right"} <= set(values)
    assert mean["retention"]["low"] <= mean["retention"]["mean"] <= mean["retention"]["high"]
    assert systems["student@8"]["evaluations"] == 8
    assert report["summary"]["base"]["retention"]["mean"] == pytest.approx(1.0)


@pytest.mark.slow
def test_the_run_leaves_what_it_promises(finished: tuple[Path, str]) -> None:
    output, printed = finished
    for name in (
        "manifest.resolved.yaml", "metrics.jsonl", "samples/step-000004.png", "checkpoints/step-000004", "result.png",
        "report.md", "report.html",
        "collection/pytorch_lora_weights.safetensors", "collection/scheduler_config.json", "collection/effects.json",
        "collection/README.md", "collection/manifest.resolved.yaml",
    ):  # fmt: skip
        assert (output / name).exists(), name
    shown = ("closeness to the truth ↑", "right truth nearest ↑", "general instructions kept ↑")
    for text in (*shown, str(output / "result.png"), str(output / "report.html"), "cldistill generate"):
        assert text in printed.replace("\n", "")


@pytest.mark.slow
def test_the_collection_edits_a_picture_of_any_size(finished: tuple[Path, str], tmp_path: Path) -> None:
    Image.new("RGBA", (150, 90), (200, 80, 40, 128)).save(tmp_path / "cat.png")
    command = ["generate", str(finished[0] / "collection"), "--image", str(tmp_path / "cat.png")]
    out = tmp_path / "out.png"
    result = CliRunner().invoke(app, [*command, "--effect", "halftone", "--seed", "7", "-o", str(out)])
    assert result.exit_code == 0, result.output
    made = Image.open(out)
    assert made.width / made.height == pytest.approx(150 / 90, rel=0.1)
    result = CliRunner().invoke(app, [*command, "--effect", "halftoen", "-o", str(out)])
    assert result.exit_code != 0
    assert "halftone" in result.output + str(result.exception)
