"""The student as it stood when distillation began, frozen, as the teacher: a slot that is called and never trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest
from cldistill.plugins import register
from cldistill.testing import catalogue_with, run_manifest, tiny_run, update_context
from cldistill.testing.pictures import write_pictures
from cldistill.testing.runs import tiny_manifest
from cldistill.training.checkpoint import read
from cldistill_plugins.collectionlora import plugin
from cldistill_plugins.collectionlora.score import distribution_matching
from cldistill_plugins.evaluation import end_of_run
from cldistill_plugins.evaluation.plugin import register_observers
from cldistill_plugins.evaluators import plugin as evaluators
from cldistill_plugins.planning.memory import FROZEN_BYTES, TRAINED_BYTES, memory
from cldistill_plugins.samples import sample_grids
from cldistill_plugins.samples.plugin import register_observers as register_sample_grids

KNOWN = catalogue_with(*register(plugin).components)
BEGIN = 2
FROM = {"from_step": BEGIN, "init": "slot:student", "rank": 2}
PARTS: dict[str, Any] = {
    "router": {"use": "pdsr", "options": {"p_switch": 0.7, "mixed_until": BEGIN}},
    "prompts": {"use": "aop", "options": {"captioner": "template"}},
    "losses": [
        {"use": "ta-fm", "streams": ["mixed", "effect"]},
        {"use": "bs-dmd", "from_step": BEGIN, "options": {"real": "frozen"}},
        {"use": "bs-dmd", "streams": ["general"], "from_step": BEGIN},
        {"use": "ts-dmd", "from_step": BEGIN, "options": {"real": "frozen"}},
        {"use": "fake-score", "from_step": BEGIN},
    ],
    "slots": {"student": {"rank": 2, "lr": 1e-2}, "critic": {**FROM, "lr": 1e-2}, "frozen": FROM},
    "targets": {"from": "pair"},
}


def test_the_score_of_the_slot_stands_in_for_the_teachers() -> None:
    run = tiny_run(slots=("student", "critic", "frozen"))
    context = update_context(run=run)
    x0, sigma = torch.randn(context.batch.size, *context.batch.latent_shape), torch.full((context.batch.size,), 0.5)
    graded = x0.requires_grad_()
    apart = distribution_matching(context, graded, sigma, "critic", "frozen")
    assert apart.metrics["gradient"] > 0
    assert apart.metrics["gradient"] != distribution_matching(context, graded, sigma, "critic").metrics["gradient"]
    run.slots.copy("critic", "frozen")
    assert distribution_matching(context, graded, sigma, "critic", "frozen").metrics["gradient"] == 0.0


@pytest.mark.slow
def test_where_there_is_no_teacher_nothing_is_shown_as_one(tmp_path: Path) -> None:
    plain, images = tiny_manifest(tmp_path), str(write_pictures(tmp_path / "held-out"))
    (first, second), drawn = plain["effects"], {}

    def kept(path: Path, rows: Any, titles: Any, caption: str) -> None:
        drawn[path.name] = list(titles), [[picture is not None for picture in row.pictures] for row in rows]

    likeness = [part for part in register(evaluators).components if part.name == "likeness"]
    known = catalogue_with(*register(plugin).components, *likeness, *register_observers(), *register_sample_grids())
    asked = {"images": images, "pictures": 1, "teacher_steps": 2, "metrics": [{"use": "likeness"}]}
    parts = PARTS | {"samples": {"every": 3, "images": images}, "evaluate": asked}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_of_run, "save_grid", kept)
        patch.setattr(sample_grids, "save_grid", kept)
        none = [{key: value for key, value in effect.items() if key != "teacher"} for effect in (first, second)]
        done = run_manifest(tmp_path, known, steps=3, output=tmp_path / "none", **parts | {"effects": none})
        assert all("teacher" not in title and "own" not in title for titles, _ in drawn.values() for title in titles)
        report = json.loads((done.folder / "report.json").read_text())
        assert [system["name"] for system in report["systems"]] == ["base", "student@4"]
        done = run_manifest(tmp_path, known, steps=3, output=tmp_path / "one", **parts | {"effects": [first, none[1]]})
    assert drawn["step-000003.png"] == (
        ["source", "teacher · 40 evaluations", "student · 4"],
        [[True] * 3, [True, False, True]],
    )
    report = json.loads((done.folder / "report.json").read_text())
    assert {name: list(pools) for name, pools in report["values"].items()} == {
        "teacher@2": ["invert"], "teacher@4": ["invert"], "student@4": ["invert", "soften"],
    }  # fmt: skip


@pytest.mark.slow
def test_pairs_alone_are_enough_and_the_copy_stays_as_it_was_through_a_stop(tmp_path: Path) -> None:
    """No effect has a teacher; the frozen slot is the student of step 2 to the end, also in a run that was resumed."""
    plain = tiny_manifest(tmp_path)
    effects = [{key: value for key, value in effect.items() if key != "teacher"} for effect in plain["effects"]]
    train = plain["train"] | {"checkpoint_every": 1}
    parts = PARTS | {"effects": effects, "train": train | {"generator_steps": 5, "keep": 9}}
    whole = run_manifest(tmp_path, KNOWN, output=tmp_path / "whole", **parts)
    checkpoints = [read(whole.folder / f"checkpoints/step-{step:06d}") for step in range(1, 6)]
    begun = checkpoints[BEGIN - 1].load("student")
    for later in checkpoints[BEGIN:]:
        frozen = later.load("frozen")
        assert all(torch.equal(frozen[name], value) for name, value in begun.items())
    assert not all(torch.equal(checkpoints[-1].load("student")[name], value) for name, value in begun.items())
    assert not any(update["slot"] == "frozen" for record in whole.metrics for update in record["updates"])

    run_manifest(
        tmp_path, KNOWN, output=tmp_path / "parts", **parts | {"train": train | {"generator_steps": 3, "keep": 9}}
    )
    resumed = run_manifest(tmp_path, KNOWN, output=tmp_path / "parts", **parts)
    for slot in ("student", "critic", "frozen"):
        one, other = (read(run.folder / "checkpoints/step-000005").load(slot) for run in (whole, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_check_and_plan_know_it(tmp_path: Path) -> None:
    def check(**parts: Any) -> Any:
        (tmp_path / "m.yaml").write_text(yaml.safe_dump(tiny_manifest(tmp_path, **PARTS | parts), sort_keys=False))
        return check_manifest(str(tmp_path / "m.yaml"), catalogue=KNOWN)

    checked = check()
    bill = {amount.name: amount.bytes for amount in memory(checked).training}
    share = bill["frozen: weights (fp32)"] / bill["critic: weights, Adam (fp32)"]
    assert share == FROZEN_BYTES / TRAINED_BYTES
    with pytest.raises(ManifestError, match=r"slots\.frozen: no loss trains this slot, or calls it"):
        check(losses=[PARTS["losses"][0], {"use": "bs-dmd", "from_step": BEGIN}, PARTS["losses"][4]])
    with pytest.raises(ManifestError, match="bs-dmd calls the slot 'frozne', which the manifest does not have"):
        check(losses=[PARTS["losses"][0], {"use": "bs-dmd", "options": {"real": "frozne"}}, *PARTS["losses"][2:]])
    with pytest.raises(
        ManifestError, match="bs-dmd is not made for this stream"
    ):  # what the student has forgotten is no teacher of it
        wrong = PARTS["losses"][1] | {"streams": ["general"]}
        check(losses=[PARTS["losses"][0], wrong, *PARTS["losses"][2:]])
