"""The variance of gradients: its estimate, and that batches of one effect have more of it than batches of several."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput
from cldistill.training.run import Term
from cldistill_plugins.effectbench.figures.opened import OpenedRun
from cldistill_plugins.effectbench.figures.variance import measure, variance


def test_it_is_the_trace_of_the_covariance() -> None:
    gradients = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    assert variance(list(gradients)) == pytest.approx(float(torch.cov(gradients.T).trace()), rel=1e-5)


@pytest.mark.slow
def test_a_batch_of_one_effect_has_more_of_it(opened: OpenedRun) -> None:
    pulls = {effect: (-1.0) ** index for index, effect in enumerate(opened.effects)}

    def term(context: UpdateContext) -> LossOutput:
        """Pull each item its effect's way: all of the variance is between effects."""
        x = torch.ones((context.batch.size, *context.batch.latent_shape))
        velocity = context.student(x, torch.full((len(x),), 0.5)).flatten(1).mean(dim=1)
        return LossOutput((velocity * torch.tensor([pulls[item.pool] for item in context.batch.items])).mean())

    run = replace(opened.run, terms=(Term("pull", term, "student"), Term("other", term, "critic")))
    found = measure(replace(opened, run=run), draws=60, items=4)
    assert list(found) == ["pull"]
    # The mean of four signs has a quarter of one sign's variance.
    assert found["pull"]["ratio"] == pytest.approx(4, rel=0.5)
