"""``recall``: the student is held to what the collection before it predicts, at its own states."""

from __future__ import annotations

import pytest
import torch

from cldistill.records import LossOutput
from cldistill.schedule import to_x0
from cldistill.testing import check_loss_term, update_context
from cldistill_plugins.incremental.plugin import register_loss_terms
from cldistill_plugins.incremental.recall import Recall

torch.set_num_threads(1)


@pytest.mark.slow
def test_it_keeps_the_engines_rules() -> None:
    check_loss_term(register_loss_terms()[0])


def test_it_is_the_squared_difference_of_velocities_at_the_rollouts_state() -> None:
    context = update_context(stream="effect")
    found: LossOutput = Recall()(context)
    at = context.rollout()
    with torch.no_grad():
        student, before = context.student(at.x, at.sigma), context.teacher(at.x, at.sigma)
    torch.testing.assert_close(found.loss.detach(), (student - before).square().mean())
    assert found.metrics == {"k": float(at.k)}
    torch.testing.assert_close(context.sample(), to_x0(at.x, student, at.sigma))  # a critic takes it over


def test_a_step_along_its_gradient_brings_the_student_nearer() -> None:
    context = update_context(stream="effect")
    first = Recall()(context).loss
    first.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in context.run.slots.parameters("student").values():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad / parameter.grad.norm().clamp_min(1e-12)
    at = context.rollout()
    with torch.no_grad():
        after = (context.student(at.x, at.sigma) - context.teacher(at.x, at.sigma)).square().mean()
    assert after < first.detach()
