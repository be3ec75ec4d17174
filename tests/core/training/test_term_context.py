"""One update as its loss terms see it: rollouts, samples that are handed on, noise, and when a term counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from cldistill.data.dataset import shares_of
from cldistill.protocols import UpdateContext
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, LossOutput, Route, RouteRequest, Share
from cldistill.schedule import Schedule
from cldistill.testing import ObservedContext, TinyBase, tiny_batch, tiny_dataset, tiny_run, update_context
from cldistill.training.run import LrPhase, Run, SlotConfig, Term
from cldistill.training.step import make_optimizers, run_step

torch.set_num_threads(1)
STEPS = 4


# --- the rollout


def euler(velocity: Callable[[Tensor, Tensor], Tensor], sigmas: Tensor, x: Tensor, to: Tensor) -> Tensor:
    """Follow ``dx = v d sigma`` from the first sigma down to ``to``."""
    for sigma, following in zip(sigmas, [*sigmas[1:], to], strict=True):
        x = x + (following - sigma) * velocity(x, sigma.expand(len(x)))
    return x


@pytest.mark.slow
def test_the_depth_is_uniform_over_the_samplers_steps_and_its_calls_stop_there() -> None:
    run, depths = tiny_run(schedule=Schedule(STEPS)), Counter[int]()
    draws = 400
    for seed in range(draws):
        context = update_context(run=run, seed=seed)
        rollout = context.rollout()
        depths[rollout.k] += 1
        assert len(context.calls) == rollout.k
        assert not any(call.graded for call in context.calls)
        assert torch.equal(rollout.sigma, Schedule(STEPS).sigmas()[rollout.k].expand(2))
    assert sorted(depths) == [0, 1, 2, 3]
    # five standard deviations of a binomial with p = 1/4: sqrt(400 * 1/4 * 3/4) = 8.7
    assert all(abs(count - draws / STEPS) < 5 * 8.7 for count in depths.values()), depths


@pytest.mark.slow
def test_two_ranks_go_equally_deep_from_different_noise() -> None:
    runs = [tiny_run(schedule=Schedule(STEPS)) for _ in range(2)]
    runs[1].random = KeyedRandom(0, rank=1)
    for seed in range(20):
        rollouts = [update_context(run=run, seed=seed).rollout() for run in runs]
        assert rollouts[0].k == rollouts[1].k
        assert not torch.equal(rollouts[0].x, rollouts[1].x)
    assert runs[0].forwards == runs[1].forwards > 0


def test_all_terms_of_an_update_share_one_rollout_and_one_sample() -> None:
    context = update_context(seed=1)
    first, second = context.for_term("a"), context.for_term("b")
    assert first.rollout() is second.rollout()
    assert first.sample() is second.sample()
    assert len(context.calls) == context.rollout().k + 1
    assert not torch.equal(first.random.normal((3,), "noise"), second.random.normal((3,), "noise"))
    assert torch.equal(first.random.normal((3,), "noise"), second.random_of("a").normal((3,), "noise"))


def test_without_fresh_noise_the_rollout_is_eulers_path() -> None:
    schedule = Schedule(STEPS, stochastic=False)
    run = tiny_run(schedule=schedule)
    seed = next(seed for seed in range(20) if update_context(run=run, seed=seed).rollout().k == STEPS - 1)
    context = update_context(run=run, seed=seed)
    end = context.rollout()
    start = context.shared.normal(end.x.shape, "rollout", "start")
    with torch.no_grad():
        expected = euler(context.student, schedule.sigmas()[:-1], start, to=schedule.sigmas()[-1])
    torch.testing.assert_close(end.x, expected)
    fresh = update_context(run=tiny_run(schedule=Schedule(STEPS)), seed=seed)
    assert fresh.rollout().k == end.k and not torch.allclose(fresh.rollout().x, end.x, atol=1e-2)


def test_each_item_has_the_teacher_of_its_own_pool() -> None:
    run = tiny_run()
    mixed, x, sigma = _mixed(run)
    together = mixed.teacher(x, sigma)
    assert [call.slot for call in mixed.calls] == ["teacher"] * 3
    for share in mixed.batch.shares:
        alone = update_context(run=run, batch=replace(mixed.batch, shares=(Share(share.effect, (0, 1, 2, 3)),)))
        rows = list(share.rows)
        torch.testing.assert_close(together[rows], alone.teacher(x, sigma)[rows])
    first, second, general = (list(share.rows) for share in mixed.batch.shares)
    assert (first, second, general) == ([0, 2], [1], [3])


def _mixed(run: Run) -> tuple[ObservedContext, Tensor, Tensor]:
    pools = ["invert", "soften", "invert", GENERAL]
    batch = tiny_batch(run.base, "effect", 4)
    items = tuple(replace(item, pool=pool) for item, pool in zip(batch.items, pools, strict=True))
    context = update_context(run=run, batch=replace(batch, items=items, shares=shares_of(pools)))
    x = torch.randn((4, *batch.latent_shape), generator=torch.Generator().manual_seed(0))
    return context, x, torch.full((4,), 0.5)


def test_a_share_is_cut_where_another_rank_has_more_of_them() -> None:
    pools = ["a", "b", "a", "a", GENERAL]
    assert [(share.effect, share.rows) for share in shares_of(pools)] == [("a", (0, 2, 3)), ("b", (1,)), (None, (4,))]
    cut = shares_of(pools, 5)
    assert sorted(str(share.effect) for share in cut) == ["None", "a", "a", "a", "b"]
    assert sorted(row for share in cut for row in share.rows) == [0, 1, 2, 3, 4]
    assert shares_of(["a"], 3) == (Share("a", (0,)),), "there is no call without an item"


# --- the loop around it


class Effects:
    """A router that only knows the effect stream."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {request.effects[request.random.integer(len(request.effects), "effect")]: 1.0})


class Spy:
    """A loss term that writes down what it sees: ``|| v(x, sigma) ||^2`` at fixed noise."""

    def __init__(self, slot: str = "student", keep: bool = False) -> None:
        self.slot, self.keep = slot, keep
        self.seen: list[UpdateContext] = []
        self.noise: list[Tensor] = []
        self.samples: list[Tensor] = []

    def __call__(self, context: UpdateContext) -> LossOutput:
        self.seen.append(context)
        shape = (context.batch.size, *context.batch.latent_shape)
        self.noise.append(context.random.normal(shape, "noise"))
        velocity = context.slot(self.slot, torch.ones(shape), torch.full((context.batch.size,), 0.5))
        if self.keep:
            context.keep_sample(velocity)
        self.samples.append(context.sample())
        return LossOutput(velocity.square().mean())


def spied(*terms: Term, reuse: bool | Literal["trajectory"] = False, updates: int = 1) -> Run:
    """A run of these terms on the tiny base, its critic with ``updates`` a step."""
    run = tiny_run(TinyBase())
    run.dataset, run.terms, run.router, run.batch_size = tiny_dataset(run.base), terms, Effects(), 2
    rates = (LrPhase(0, 1e-3),)
    run.slot_configs = (
        SlotConfig("student", 2, 2.0, rates),
        SlotConfig("critic", 2, 2.0, rates, updates=updates, reuse_sample=reuse),
    )
    return run


def test_a_reused_sample_is_the_very_tensor_of_the_students_update() -> None:
    student, critic = Spy(keep=True), Spy("critic")
    run = spied(Term("s", student, "student"), Term("c", critic, "critic"), reuse=True, updates=3)
    run_step(run, make_optimizers(run), 0)
    assert len(student.samples) == 1 and len(critic.samples) == 3
    assert critic.samples[0] is student.samples[0]
    assert critic.seen[0].batch is student.seen[0].batch
    assert not critic.samples[0].requires_grad
    assert all(sample is not student.samples[0] for sample in critic.samples[1:])


@pytest.mark.slow
def test_a_trajectory_serves_all_updates_of_a_cycle_each_at_another_of_its_steps() -> None:
    student, critic = Spy(), Spy("critic")
    run = spied(Term("s", student, "student"), Term("c", critic, "critic"), reuse="trajectory", updates=STEPS)
    run.schedule = Schedule(STEPS)
    for step in range(6):
        before = run.forwards
        run_step(run, make_optimizers(run), step)
        own = student.seen[-1]
        cycle, samples = critic.seen[-STEPS:], critic.samples[-STEPS:]
        assert samples[0] is student.samples[-1]
        assert all(context.batch is own.batch for context in cycle)
        depths = [context.rollout().k for context in cycle]
        assert depths[0] == own.rollout().k and sorted(depths) == list(range(STEPS))
        assert len({id(sample) for sample in samples}) == STEPS
        # One call a step of the trajectory, and the graded one of each update.
        assert run.forwards - before == STEPS + 1 + STEPS


def test_five_critic_updates_draw_different_noise_samples_and_batches() -> None:
    critic = Spy("critic")
    run = spied(Term("c", critic, "critic"), updates=5)
    optimizers = make_optimizers(run)
    for step in range(2):
        run_step(run, optimizers, step)
    for drawn in (critic.noise, critic.samples, [context.rollout().x for context in critic.seen]):
        assert len(drawn) == 10
        assert not any(torch.equal(drawn[i], drawn[j]) for i in range(10) for j in range(i))
    assert len({tuple(item.key for item in context.batch.items) for context in critic.seen}) > 3


def test_a_term_counts_from_its_first_step_until_its_last() -> None:
    term = Spy()
    run = spied(Term("late", term, "student", from_step=2, until_step=4))
    optimizers = make_optimizers(run)
    results = [run_step(run, optimizers, step) for step in range(6)]
    assert [context.step for context in term.seen] == [2, 3]
    assert [len(result.updates) for result in results] == [0, 0, 1, 1, 0, 0]
    assert optimizers["student"].updates == 2


def test_a_term_counts_on_its_own_streams_alone() -> None:
    here, elsewhere = Spy(), Spy()
    run = spied(
        Term("here", here, "student", frozenset({"effect"})), Term("there", elsewhere, "student", frozenset({GENERAL}))
    )
    run_step(run, make_optimizers(run), 0)
    assert (len(here.seen), len(elsewhere.seen)) == (1, 0)


def test_weights_multiply_gradients_and_leave_the_logged_loss_alone() -> None:
    found = {}
    for weight in (1.0, 0.25):
        run = spied(Term("w", Spy(), "student", weight=weight))
        (update,) = run_step(run, make_optimizers(run), 0).updates
        found[weight] = (update.losses["w"], update.grad_norm)
    assert found[0.25][0] == found[1.0][0]
    assert found[0.25][1] == pytest.approx(0.25 * found[1.0][1], rel=1e-5)
    run = spied(Term("a", Spy(), "student", weight=0.75), Term("b", Spy(), "student", weight=0.25))
    (update,) = run_step(run, make_optimizers(run), 0).updates
    assert update.grad_norm == pytest.approx(found[1.0][1], rel=1e-5), "two halves of one loss are that loss"
