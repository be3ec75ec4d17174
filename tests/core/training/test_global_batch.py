"""A global batch is the same whoever does it: at once, in parts, or one part on each of several ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate.utils import DistributedType

from cldistill import assemble as assemble_module
from cldistill.assemble import assemble, make_accelerator
from cldistill.errors import LaunchError, ManifestError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.models import Train
from cldistill.manifest.resolved import decisive, manifest_digest, resolve
from cldistill.random import KeyedRandom
from cldistill.records import STUDENT, Route, RouteRequest, StepResult
from cldistill.testing.contexts import on_rank, tiny_dataset, tiny_run
from cldistill.training import checkpoint
from cldistill.training.run import Run
from cldistill.training.step import _context, make_optimizers, run_step

torch.set_num_threads(1)
TRAIN = {"generator_steps": 5, "checkpoint_every": 5, "seed": 1, "device": "cpu"}


def test_an_item_draws_as_the_rank_of_its_number() -> None:
    ranks = [KeyedRandom(5, rank).child("a", 1) for rank in range(4)]
    both = KeyedRandom(5).child("a").of(2, 3).child(1)
    assert torch.equal(both.normal((2, 3, 4), "n"), torch.cat([ranks[i].normal((1, 3, 4), "n") for i in (2, 3)]))
    assert torch.equal(both.uniforms(2, "u"), torch.cat([ranks[i].uniforms(1, "u") for i in (2, 3)]))
    assert both.uniform("p", per_rank=True) == ranks[2].uniform("p", per_rank=True)
    assert both.integer(10**9, "depth") == ranks[0].integer(10**9, "depth")
    shared = both.normal((2, 3), "n", per_rank=False)
    assert torch.equal(shared, ranks[0].normal((2, 3), "n", per_rank=False))


def test_without_places_a_batch_is_drawn_at_once() -> None:
    random = KeyedRandom(5, 1)
    wanted = torch.rand(3, generator=random.generator("u", per_rank=True))
    assert torch.equal(random.uniforms(3, "u"), wanted)
    assert random.items(2) == [random.child("item", 0), random.child("item", 0), random.child("item", 1)]


class OneEffect:
    """A router that always draws the first effect."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {request.effects[0]: 1.0})


def drawn(run: Run, part: int = 0) -> tuple[list[str], torch.Tensor]:
    """Return a micro-batch's items and the noise with which its rollout begins."""
    context = _context(run, run.slot_config(STUDENT), 3, 0, part, ())
    context.rollout()
    return [item.key for item in context.batch.items], context.memo.path[0].x


def test_parts_of_one_process_are_the_batches_of_as_many_ranks() -> None:
    run = tiny_run(seed=2)
    run.dataset, run.router = tiny_dataset(run.base), OneEffect()
    ranked = []
    for rank in range(4):
        with on_rank(run, rank, 4):
            run.random = KeyedRandom(2, rank)
            ranked.append(drawn(run))
    run.random = KeyedRandom(2)
    for processes, batch_size in ((1, 1), (1, 4), (2, 2), (2, 1), (4, 1)):
        run.batch_size, run.micro_batches = batch_size, 4 // (processes * batch_size)
        found: dict[int, tuple[str, torch.Tensor]] = {}
        for rank in range(processes):
            with on_rank(run, rank, processes):
                for part in range(run.micro_batches):
                    items, noise = drawn(run, part)
                    first = (part * processes + rank) * batch_size
                    found |= {first + i: (item, noise[i : i + 1]) for i, item in enumerate(items)}
        assert sorted(found) == [0, 1, 2, 3]
        for place, (items, noise) in enumerate(ranked):
            assert [found[place][0]] == items and torch.equal(found[place][1], noise)
    assert len({items[0] for items, _ in ranked}) > 1


@pytest.fixture
def trained(tiny_manifest: Callable[..., Path], tmp_path: Path) -> Callable[[int], tuple[Run, list[StepResult]]]:
    """Do all steps of the whole method with four items an update, so many at once."""

    def train(batch_size: int) -> tuple[Run, list[StepResult]]:
        manifest = tiny_manifest(train={**TRAIN, "batch_size": batch_size, "global_batch": 4})
        checked = check_manifest(str(manifest), ["slots.critic.reuse_sample=trajectory"])
        run = assemble(checked, tmp_path / str(batch_size), cache=tmp_path / "cache")
        optimizers = make_optimizers(run)
        return run, [run_step(run, optimizers, step) for step in range(run.total_steps)]

    return train


@pytest.mark.slow(12)
def test_accumulated_gradients_are_those_of_the_whole_batch(
    trained: Callable[[int], tuple[Run, list[StepResult]]],
) -> None:
    (whole, at_once), (parts, one_by_one) = trained(4), trained(1)
    assert whole.micro_batches == 1 and parts.micro_batches == 4
    streams = {update.stream for step in at_once for update in step.updates}
    assert {"mixed", "effect"} <= streams  # several teachers in one batch, and the full objective
    for a, b in zip(at_once, one_by_one, strict=True):
        for one, other in zip(a.updates, b.updates, strict=True):
            assert replace(one, losses={}, metrics={}, grad_norm=0) == replace(
                other, losses={}, metrics={}, grad_norm=0
            )
            assert one.losses == pytest.approx(other.losses, rel=1e-5, abs=1e-7)
            assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    assert sum(step.forwards for step in one_by_one) >= 2 * sum(step.forwards for step in at_once)
    for slot in ("student", "critic"):
        again = parts.slots.state(slot)
        for name, value in whole.slots.state(slot).items():
            assert torch.allclose(value, again[name], rtol=0, atol=1e-6), name


def test_a_global_batch_that_cannot_be_shared_out_is_refused(
    tiny_manifest: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestError, match=r"train.global_batch.*give a multiple of train.batch_size"):
        check_manifest(str(tiny_manifest(train={**TRAIN, "batch_size": 2, "global_batch": 3})), files=False)
    checked = check_manifest(str(tiny_manifest(train={**TRAIN, "batch_size": 2, "global_batch": 4})), files=False)
    three = SimpleNamespace(num_processes=3, distributed_type=DistributedType.MULTI_CPU, mixed_precision="no")
    monkeypatch.setattr(assemble_module, "Accelerator", lambda **_: three)
    with pytest.raises(LaunchError, match=r"global_batch: 4 is no multiple of 3 processes with train\.batch_size: 2"):
        make_accelerator(checked)
    three.num_processes = 2
    assert cast(Any, make_accelerator(checked)) is three
    train = Train(batch_size=2, global_batch=16)
    assert [train.micro_batches(processes) for processes in (1, 2, 3, 8, 16)] == [8, 4, 0, 1, 0]
    assert Train(batch_size=2).micro_batches(7) == 1


def test_a_checkpoint_of_a_global_batch_goes_on_on_any_number_of_ranks(tmp_path: Path) -> None:
    found = checkpoint.Checkpoint(1, tmp_path, {"manifest": "a", "processes": None}, {})
    found.must_belong_to("a", 1)
    found.must_belong_to("a", 8)


def test_manifests_without_it_are_the_runs_that_they_were(tiny_manifest: Callable[..., Path]) -> None:
    plain = check_manifest(str(tiny_manifest(train=TRAIN)), files=False)
    other = check_manifest(str(tiny_manifest("b.yaml", train={**TRAIN, "global_batch": 2})), files=False)
    assert "global_batch" not in decisive(resolve(plain))["train"]
    assert manifest_digest(plain) != manifest_digest(other)
