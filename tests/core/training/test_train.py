"""The loop: resume is exact, bad numbers and signals cost nothing, only the slot in training moves."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cldistill.assemble import assemble
from cldistill.errors import CheckpointError, NonFiniteError, PluginError
from cldistill.manifest.check import check_manifest
from cldistill.prepare import some
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput, StepResult
from cldistill.training import checkpoint
from cldistill.training import step as step_module
from cldistill.training.metrics_log import MetricsLog
from cldistill.training.observers import Observers
from cldistill.training.run import Run
from cldistill.training.step import make_optimizers, run_step
from cldistill.training.train import final_weights, save, train

Write = Callable[..., Path]


def build(manifest: Path, output: Path) -> Run:
    """Assemble a run with the metrics log."""
    output.mkdir(parents=True, exist_ok=True)
    return assemble(check_manifest(str(manifest)), output, observers=lambda context: [MetricsLog()])


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all runs of this file: their teachers and encodings are the same, and none is about these."""
    monkeypatch.setenv("CLDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache-of-test-train"))


@pytest.fixture(scope="module")
def finished_run() -> dict[str, Path]:
    """Where the finished run of `trained` lies, once it was made."""
    return {}


@pytest.fixture
def trained(
    tiny_manifest: Write, tmp_path: Path, finished_run: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of one finished run of the manifest as it comes."""
    if not finished_run:
        made = tmp_path_factory.mktemp("trained") / "out"
        assert train(build(tiny_manifest(), made)) == 6
        finished_run["folder"] = made
    shutil.copytree(finished_run["folder"], tmp_path / "trained")
    return tmp_path / "trained"


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Killer:
    """Observer that ends the process's training as a kill would: in the middle, after a step, without a save."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, run: Run, optimizers: object, step: int) -> StepResult:
        if step == self.after:
            raise SystemExit("killed")
        return run_step(run, optimizers, step)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_byte_for_byte_like_an_unbroken_one(
    tiny_manifest: Write, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny_manifest()
    with monkeypatch.context() as patch:
        patch.setattr("cldistill.training.train.run_step", Killer(after=5))
        with pytest.raises(SystemExit):
            train(build(manifest, tmp_path / "broken"))
    assert (tmp_path / "broken/checkpoints/step-000004").is_dir()
    assert train(build(manifest, tmp_path / "broken")) == 6

    whole, mended = files(trained / "checkpoints"), files(tmp_path / "broken/checkpoints")
    assert whole.keys() == mended.keys()
    assert any("optimizer-critic" in name for name in whole)
    assert any("ema-student" in name for name in whole)
    assert all(whole[name] == mended[name] for name in whole)
    assert metrics(trained) == metrics(tmp_path / "broken")


def metrics(output: Path) -> list[dict[str, object]]:
    """The log without time and memory."""
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in rows]


@pytest.mark.slow
def test_another_manifest_does_not_go_on_with_this_run(tiny_manifest: Write, trained: Path) -> None:
    changed = tiny_manifest("other.yaml", sampler={"steps": 4, "shift": 2.0})
    with pytest.raises(CheckpointError, match=r"another manifest.*--fresh"):
        train(build(changed, trained))


@pytest.mark.slow
def test_renaming_a_run_is_no_other_manifest(tiny_manifest: Write, trained: Path) -> None:
    assert train(build(tiny_manifest("other.yaml", name="renamed"), trained)) == 6


@pytest.mark.slow
def test_an_update_moves_its_own_slot_and_nothing_else(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    optimizers = make_optimizers(run)
    run_step(run, optimizers, 0)
    frozen = {name: value.clone() for name, value in run.base.backbone.named_parameters() if not value.requires_grad}
    before = {slot: {k: v.clone() for k, v in run.slots.state(slot).items()} for slot in ("student", "critic")}
    run_step(run, optimizers, 3)
    for slot, state in before.items():
        assert any(not torch.equal(value, run.slots.state(slot)[name]) for name, value in state.items()), slot
    for name, value in run.base.backbone.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name


@pytest.mark.slow
def test_gradients_do_not_leak_from_the_students_update_to_the_critic(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    optimizers = make_optimizers(run)
    run.terms = tuple(t for t in run.terms if t.slot == "student")
    for step in range(3, 6):
        run_step(run, optimizers, step)
    critic = run.slots.parameters("critic").values()
    assert all(p.grad is None or not p.grad.any() for p in critic)
    assert optimizers["critic"].updates == 0


@pytest.mark.slow
def test_the_critic_starts_as_a_copy_of_the_student(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    optimizers = make_optimizers(run)
    for step in range(2):
        run_step(run, optimizers, step)
    student = {name: value.clone() for name, value in run.slots.state("student").items()}
    step_module.begin_slots(run, optimizers, 2)
    assert all(torch.equal(run.slots.state("critic")[name], value) for name, value in student.items())


@pytest.mark.slow
def test_the_first_critic_update_reuses_the_students_sample(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    results = [run_step(run, make_optimizers(run), step) for step in range(2, 12)]
    for result in results:
        student, first, _ = result.updates
        assert (student.stream, student.pools) == (first.stream, first.pools)
    run.slot_configs = tuple(replace(c, reuse_sample=False) for c in run.slot_configs)
    again = [run_step(run, make_optimizers(run), step) for step in range(2, 12)]
    assert sum(r.forwards for r in again) > sum(r.forwards for r in results)


class NanOn:
    """A loss that is not finite in some steps."""

    def __init__(self, inner: Callable[[UpdateContext], LossOutput], steps: set[int]) -> None:
        self.inner = inner
        self.steps = steps

    def __call__(self, context: UpdateContext) -> LossOutput:
        output = self.inner(context)
        return LossOutput(output.loss * math.nan, {}) if context.step in self.steps else output


def spoil(run: Run, steps: set[int]) -> None:
    """Make ta-fm return NaN in ``steps``."""
    run.terms = tuple(replace(t, loss=NanOn(t.loss, steps)) if t.name == "ta-fm" else t for t in run.terms)


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped_and_counted(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    spoil(run, {1})
    assert train(run) == 6
    rows = metrics(tmp_path / "out")
    skipped = [[u["skipped"] for u in row["updates"]] for row in rows]  # type: ignore[attr-defined]
    assert skipped[1] == [True]
    assert not any(any(flags) for index, flags in enumerate(skipped) if index != 1)
    weights, _ = final_weights(run, "student")
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.slow
def test_too_many_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(tiny_manifest: Write, tmp_path: Path) -> None:
    manifest = tiny_manifest(
        router={"use": "pdsr", "options": {"mixed_until": 30}},
        train={"generator_steps": 20, "batch_size": 2, "checkpoint_every": 2, "max_bad_steps": 3, "device": "cpu"},
    )
    run = build(manifest, tmp_path / "out")
    spoil(run, set(range(4, 20)))
    with pytest.raises(NonFiniteError, match=r"3 steps in a row.*step 4 .*last good"):
        train(run)
    assert [p.name for p in sorted((tmp_path / "out/checkpoints").iterdir())] == ["step-000002", "step-000004"]


@pytest.mark.slow
def test_a_signal_saves_after_the_step_and_the_run_goes_on_later(
    tiny_manifest: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Run, optimizers: object, step: int) -> StepResult:
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        return run_step(run, optimizers, step)  # type: ignore[arg-type]

    manifest = tiny_manifest()
    with monkeypatch.context() as patch:
        patch.setattr("cldistill.training.train.run_step", interrupted)
        assert train(build(manifest, tmp_path / "out")) == 3
    assert (tmp_path / "out/checkpoints/step-000003").is_dir()
    assert train(build(manifest, tmp_path / "out")) == 6


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tiny_manifest: Write, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(trained / "checkpoints/step-000006")
    damaged = trained / "checkpoints/step-000006/student.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"oops")
    assert train(build(tiny_manifest(), trained)) == 6
    assert "step-000006" in capsys.readouterr().err
    assert files(trained / "checkpoints/step-000006") == before


@pytest.mark.slow
@pytest.mark.parametrize("every", [2, 4])
def test_a_last_step_that_is_not_finite_still_leaves_the_weights_of_all_others(
    tiny_manifest: Write, tmp_path: Path, every: int
) -> None:
    train_part = {"generator_steps": 3, "batch_size": 2, "checkpoint_every": every, "seed": 1, "device": "cpu"}
    run = build(tiny_manifest(train=train_part), tmp_path / "out")
    spoil(run, {2})
    assert train(run) == 3
    weights, kind = final_weights(run, "student")
    assert kind == "ema"
    assert [p.name for p in sorted((tmp_path / "out/checkpoints").iterdir())][-1] == "step-000003"
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert run.slots.state("student").keys() == weights.keys()


class NanGradient:
    """A finite loss whose gradient is not a number: the derivative of a square root at zero."""

    def __init__(self, inner: Callable[[UpdateContext], LossOutput]) -> None:
        self.inner = inner

    def __call__(self, context: UpdateContext) -> LossOutput:
        loss = self.inner(context).loss
        return LossOutput(loss + torch.sqrt((loss - loss.detach()).abs()), {})


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_moves_nothing(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    optimizers = make_optimizers(run)
    run_step(run, optimizers, 0)
    before, state = run.slots.state("student"), {k: v.clone() for k, v in optimizers["student"].state().items()}
    run.terms = tuple(replace(t, loss=NanGradient(t.loss)) if t.name == "ta-fm" else t for t in run.terms)
    update = run_step(run, optimizers, 1).updates[0]
    assert update.skipped
    assert math.isfinite(update.losses["ta-fm"]) and not math.isfinite(update.grad_norm)
    assert all(torch.equal(value, before[name]) for name, value in run.slots.state("student").items())
    assert all(torch.equal(value, state[name]) for name, value in optimizers["student"].state().items())


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_and_not_the_weights(tiny_manifest: Write, tmp_path: Path) -> None:
    results = {}
    for checkpointing in (False, True, 0.5):
        part = {
            "generator_steps": 6,
            "batch_size": 2,
            "seed": 1,
            "device": "cpu",
            "gradient_checkpointing": checkpointing,
        }
        run = build(tiny_manifest(f"{checkpointing}.yaml", train=part), tmp_path / str(checkpointing))
        train(run)
        results[checkpointing] = {slot: run.slots.state(slot) for slot in ("student", "critic")}
    for slot, plain in results[False].items():
        assert any(value.any() for name, value in plain.items() if "lora_B" in name)
        for name, value in plain.items():
            torch.testing.assert_close(results[True][slot][name], value, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(results[0.5][slot][name], value, rtol=1e-4, atol=1e-6)


def test_a_share_of_the_blocks_is_checkpointed() -> None:
    for share, wanted in ((1.0, 12), (0.5, 6), (0.25, 3), (0.75, 9)):
        through: list[int] = []
        run = some(share, lambda function, *args, seen=through: seen.append(1) or function(*args))
        assert [run(lambda x: -x, number) for number in range(12)] == [-number for number in range(12)]
        assert len(through) == wanted


class Detached:
    """A loss that forgot its graph."""

    def __init__(self, inner: Callable[[UpdateContext], LossOutput]) -> None:
        self.inner = inner

    def __call__(self, context: UpdateContext) -> LossOutput:
        return LossOutput(self.inner(context).loss.detach(), {})


@pytest.mark.slow
def test_a_loss_without_a_graph_is_named_instead_of_skipped(tiny_manifest: Write, tmp_path: Path) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    run.terms = tuple(replace(t, loss=Detached(t.loss)) if t.name == "ta-fm" else t for t in run.terms)
    with pytest.raises(PluginError, match=r"loss 'ta-fm' returned a loss without a graph in step 0"):
        run_step(run, make_optimizers(run), 0)


@pytest.mark.slow
def test_damage_found_at_the_export_is_told(
    tiny_manifest: Write, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = build(tiny_manifest(), trained)
    damaged = trained / "checkpoints/step-000006/student.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4] + b"oops")
    final_weights(run, "student")
    assert "step-000006 is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_takes_the_live_tensors_and_no_copies_of_all(
    tiny_manifest: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(tiny_manifest(), tmp_path / "out")
    optimizers = make_optimizers(run)
    run_step(run, optimizers, 0)
    given: dict[str, dict[str, torch.Tensor]] = {}
    monkeypatch.setattr(
        "cldistill.training.checkpoint.save", lambda root, step, groups, meta, keep: given.update(groups) or root
    )
    save(run, optimizers, Observers(run), 1)
    live = run.slots.parameters("student")
    assert all(given["student"][name].data_ptr() == value.data_ptr() for name, value in live.items())
    moments = optimizers["student"].adamw.state
    for name, value in live.items():
        assert given["optimizer-student"][f"{name}.exp_avg"].data_ptr() == moments[value]["exp_avg"].data_ptr()


@pytest.mark.slow
def test_another_number_of_processes_does_not_go_on_with_this_run(tiny_manifest: Write, trained: Path) -> None:
    run = build(tiny_manifest(), trained)
    found = checkpoint.latest(trained / "checkpoints", warn=lambda text: None)
    assert found is not None and found.meta["processes"] == 1
    with pytest.raises(CheckpointError, match=r"trained by 1 process, .* run of 2: .*--num_processes 1"):
        found.must_belong_to(run.manifest_digest, 2)
