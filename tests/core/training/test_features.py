"""Features of a block, modules that belong to terms, and graded calls that terms share: seen from a loss term."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cldistill.assemble import make_modules
from cldistill.errors import OptionsError, PluginError
from cldistill.protocols import UpdateContext
from cldistill.random import KeyedRandom
from cldistill.records import AdamW, LossOutput, Route, RouteRequest
from cldistill.testing import TinyBase, tiny_dataset, tiny_run, update_context
from cldistill.testing.contexts import SoloAccelerator
from cldistill.training.run import Run, Term
from cldistill.training.step import make_optimizers, module_key, run_step, sharing_groups

torch.set_num_threads(1)


class Effects:
    """A router that only knows the effect stream."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {request.effects[0]: 1.0})


class AtRollout:
    """``scale * || v(x_k) ||^2`` at the student's rollout."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, context: UpdateContext) -> LossOutput:
        rollout = context.rollout()
        return LossOutput(self.scale * context.student(rollout.x, rollout.sigma).square().mean())


class Judged:
    """The student's sample as a head on the critic's features sees it."""

    def __call__(self, context: UpdateContext) -> LossOutput:
        rollout = context.rollout()
        x = context.student(rollout.x, rollout.sigma)
        return LossOutput(context.module("head")(context.features("critic", x, rollout.sigma)).mean())


class Head:
    """Owns the head and trains it on features of the frozen critic."""

    optimizer = AdamW(lr=1e-2)

    def module(self) -> nn.Module:
        return nn.Linear(32, 1)

    def __call__(self, context: UpdateContext) -> LossOutput:
        with torch.no_grad():
            features = context.features("critic", context.sample(), torch.ones(context.batch.size))
        return LossOutput(context.module()(features).square().mean())


class Normalised(Head):
    """A head with running statistics."""

    def module(self) -> nn.Module:
        return nn.BatchNorm1d(32)


JUDGED, HEAD = Term("judged", Judged(), "student", shared=True), Term("head", Head(), "critic")


def run_of(*terms: Term) -> Run:
    run = tiny_run(TinyBase())
    run.dataset, run.terms, run.router, run.batch_size = tiny_dataset(run.base), terms, Effects(), 2
    run.modules = make_modules(terms, KeyedRandom(0))
    return run


def test_features_have_a_graph_for_the_slot_in_training_or_where_x_asks_for_one() -> None:
    context = update_context(trains="student")
    x, sigma = torch.randn(2, 16, 48), torch.full((2,), 0.5)
    assert context.features("student", x, sigma).shape == (2, 16, 32)
    assert context.features("student", x, sigma).requires_grad
    assert not context.features("critic", x, sigma).requires_grad
    assert context.features("critic", x.clone().requires_grad_(), sigma, at="blocks.1").requires_grad
    with torch.no_grad():
        assert not context.features("student", x, sigma).requires_grad
    student, critic = (context.features(slot, x, sigma).detach() for slot in ("student", "critic"))
    assert not torch.equal(student, critic), "each under its own adapter"
    assert [(call.slot, call.at) for call in context.calls[:2]] == [("student", "blocks.0")] * 2
    with pytest.raises(OptionsError, match=r"no block 'blocks.9'; did you mean"):
        context.features("student", x, sigma, at="blocks.9")


def gradients(checkpointed: bool) -> list[Tensor]:
    context = update_context(trains="critic")
    if checkpointed:
        context.run.base.enable_gradient_checkpointing(context.run.slots.run_pinned)
    x = context.random.normal((2, 16, 48), "x").requires_grad_()
    loss = context.features("critic", x, torch.full((2,), 0.5)).square().mean()
    with context.run.slots.scope("student"):  # the recompute must find the critic's adapter again
        loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in context.run.slots.parameters("critic").values()]
    return [x.grad, *(grad for grad in found if grad is not None)]  # type: ignore[list-item]


def test_gradient_checkpointing_changes_no_gradient_of_features() -> None:
    plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) == len(checkpointed) == 13, "x, and both halves of the six modules of the first block"
    assert all(torch.equal(*pair) for pair in zip(plain, checkpointed, strict=True))


def student_after(*terms: Term) -> tuple[dict[str, Tensor], int]:
    run = run_of(*terms)
    optimizers = make_optimizers(run)
    result = run_step(run, optimizers, 0)
    first = {key: value for key, value in optimizers["student"].state().items() if key.endswith(".exp_avg")}
    return first, result.forwards


def test_terms_that_share_a_graded_call_pay_for_it_once_and_their_gradients_add_up() -> None:
    one, three = (Term(f"{n}", AtRollout(n), "student", shared=True) for n in (1.0, 3.0))
    shared, forwards = student_after(one, three)
    alone, alone_forwards = student_after(Term("4", AtRollout(4.0), "student", shared=True))
    separate, separate_forwards = student_after(replace(one, shared=False), replace(three, shared=False))
    assert forwards == alone_forwards and separate_forwards == forwards + 1
    for name, value in shared.items():
        torch.testing.assert_close(value, alone[name])
        torch.testing.assert_close(value, separate[name])


def test_terms_that_share_go_backward_together_in_the_place_of_the_first() -> None:
    a, b, c, d = (Term(name, AtRollout(1.0), "student", shared=name in "bd") for name in "abcd")
    assert sharing_groups([a, b, c, d]) == [[a], [b, d], [c]]


class Witness:
    """Keeps a weak eye on the graph of its call, and says which of the others' are still alive."""

    def __init__(self, graphs: list[weakref.ref[Tensor]], alive: list[int]) -> None:
        self.graphs, self.alive = graphs, alive

    def __call__(self, context: UpdateContext) -> LossOutput:
        self.alive.append(sum(graph() is not None for graph in self.graphs))
        velocity = context.student(torch.ones(2, *context.batch.latent_shape), torch.full((2,), 0.5))
        self.graphs.append(weakref.ref(velocity))
        return LossOutput(velocity.square().mean())


def test_the_graph_of_a_term_that_shares_nothing_is_gone_when_the_next_is_asked() -> None:
    alive: list[int] = []
    witness = Witness([], alive)
    run = run_of(*(Term(name, witness, "student") for name in "abc"))
    run_step(run, make_optimizers(run), 0)
    assert alive == [0, 0, 0]


def test_a_module_is_made_from_its_key_alone_and_moves_by_its_owners_updates_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make_modules([HEAD], KeyedRandom(0))["head"].module.state_dict()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again = make_modules([JUDGED, HEAD], KeyedRandom(0, rank=1))["head"].module.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = make_modules([replace(HEAD, name="other")], KeyedRandom(0))["other"].module.state_dict()
    assert not torch.equal(first["weight"], other["weight"])
    with pytest.raises(PluginError, match="module of loss 'head' has buffers"):
        make_modules([replace(HEAD, loss=Normalised())], KeyedRandom(0))

    run = run_of(JUDGED)
    run.modules = make_modules([HEAD], KeyedRandom(0))
    run_step(run, make_optimizers(run), 0)
    assert torch.equal(run.modules["head"].module.state_dict()["weight"], first["weight"]), "only judged by it"
    critic = run.slots.parameters("critic").values()
    assert all(parameter.grad is None for parameter in critic), "gradients pass through the critic without a trace"
    run = run_of(JUDGED, HEAD)
    result = run_step(run, make_optimizers(run), 0)
    assert not torch.equal(run.modules["head"].module.state_dict()["weight"], first["weight"])
    assert result.updates[1].metrics["head/grad_norm"] > 0


class Meeting(SoloAccelerator):
    """Two ranks, of which the other one's gradients are such that every mean is 1."""

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        assert how == "mean"
        return torch.cat([torch.ones_like(tensor[:-1]), tensor[-1:]])


def test_a_modules_gradient_is_averaged_over_ranks_with_the_slots() -> None:
    run = run_of(JUDGED, HEAD)
    run.accelerator = cast("Any", Meeting(torch.device("cpu"), num_processes=2))
    run.grad_clip = 1e9
    optimizers = make_optimizers(run)
    run_step(run, optimizers, 0)
    moments = {key: value for key, value in optimizers[module_key("head")].state().items() if key.endswith(".exp_avg")}
    assert moments and all(torch.allclose(value, torch.full_like(value, 0.1)) for value in moments.values())
