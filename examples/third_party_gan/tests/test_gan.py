"""The example's own tests: the kit's checks on two bases, and a run whose head learns and is resumed byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from feature_gan import plugin
from safetensors.torch import load_file

from cldistill.errors import ManifestError
from cldistill.manifest.check import check_manifest
from cldistill.testing import catalogue_with, check_loss_term, run_manifest
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.planning.api import make_plan

GAN, HEAD = plugin.register_loss_terms()
SLOTS = {"student": {"rank": 2, "lr": 1e-2}, "critic": {"rank": 2, "lr": 1e-2, "updates": 2}}
LOSSES = [
    {"use": "tiny-flow"}, {"use": "gan", "weight": 0.1}, {"use": "tiny-flow", "slot": "critic", "options": {"slot": "critic"}},
    {"use": "gan-head", "options": {"lr": 1e-2}},
]  # fmt: skip


def test_both_terms_conform() -> None:
    check_loss_term(GAN, beside=[HEAD], through={"critic"})
    check_loss_term(HEAD, fresh=False)
    check_loss_term(HEAD, {"train_critic": False, "at": "blocks.0"}, fresh=False)


def test_a_run_trains_the_head_and_goes_on_byte_for_byte(tmp_path: Path) -> None:
    train = {"generator_steps": 6, "batch_size": 2, "checkpoint_every": 3, "device": "cpu"}
    whole = run_manifest(tmp_path / "whole", catalogue_with(plugin), losses=LOSSES, slots=SLOTS, train=train)
    accuracy = [
        u["metrics"]["gan-head/right"] for line in whole.metrics for u in line["updates"] if u["slot"] == "critic"
    ]
    assert sum(accuracy[-4:]) > sum(accuracy[:4])
    last = whole.folder / "checkpoints" / "step-000006"
    kept = {file.name: file.read_bytes() for file in last.glob("*.safetensors")}
    assert {"module@gan-head.safetensors", "optimizer-module@gan-head.safetensors"} <= kept.keys()
    early = load_file(last.with_name("step-000003") / "module@gan-head.safetensors")
    assert any(not value.equal(early[name]) for name, value in load_file(last / "module@gan-head.safetensors").items())
    for file in last.iterdir():  # as if it had been killed before the last steps
        file.unlink()
    last.rmdir()
    run_manifest(tmp_path / "whole", catalogue_with(plugin), losses=LOSSES, slots=SLOTS, train=train)
    assert kept == {file.name: file.read_bytes() for file in last.glob("*.safetensors")}


def test_a_missing_head_and_a_block_that_is_not_there_are_said_by_the_check(tmp_path: Path) -> None:
    losses = [{"use": "tiny-flow"}, {"use": "gan", "options": {"at": "blocks.7"}}, *LOSSES[2:3]]
    with pytest.raises(
        ManifestError, match=r"(?s)losses.1.*no block 'blocks.7'.*losses.1.*module of the loss 'gan-head'"
    ):
        run_manifest(tmp_path, catalogue_with(plugin), losses=losses, slots=SLOTS)


def test_the_plan_lists_the_head_and_counts_a_shared_call_once(tmp_path: Path) -> None:
    losses = [{"use": "gan"}, {"use": "gan", "weight": 0.5}, *LOSSES[2:]]
    file = tmp_path / "manifest.yaml"
    file.write_text(yaml.safe_dump(tiny_manifest(tmp_path, losses=losses, slots=SLOTS)))
    plan = make_plan(check_manifest(str(file), catalogue=catalogue_with(plugin)))
    (head,) = [amount for amount in plan.training if amount.name.startswith("gan-head")]
    assert head.bytes == 12 * (64 * (32 + 2) + 1), "fp32 weights and Adam's moments of an MLP 32 -> 64 -> 1"
    student, critic = 2 * 2 - 1, 2 * (1 + 2)
    assert {cycle.graded for cycle in plan.cycles} == {student + critic}
