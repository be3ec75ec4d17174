"""A probe sees what the losses see: their samples, their gradient, and directions as changes of a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cldistill.errors import DataError
from cldistill.schedule import add_noise, to_x0
from cldistill_plugins.collectionlora.dmd import dmd_gradient
from cldistill_plugins.effectbench.figures.bands import cosine, rms
from cldistill_plugins.effectbench.figures.opened import OpenedRun
from cldistill_plugins.effectbench.figures.probe import Probe
from cldistill_plugins.effectbench.metrics.high_frequency import luma

SIGMAS = torch.tensor([0.1, 0.5, 0.9])


def test_the_comparison_is_the_gradient_of_the_losses(probe: Probe) -> None:
    output = probe.backward_simulated()
    found = probe.compare(output, SIGMAS)
    context = probe.context(3)
    x = add_noise(output, context.random.normal((1, *output.shape[1:]), "score-noise"), SIGMAS)
    with torch.no_grad():
        fake = to_x0(x, context.slot("critic", x, SIGMAS), SIGMAS)
        expected = dmd_gradient(fake, to_x0(x, context.teacher(x, SIGMAS), SIGMAS), output.expand_as(x))
    assert torch.allclose(found.normaliser, expected.normaliser)
    assert torch.allclose(found.difference / found.normaliser[:, None, None], expected.gradient, atol=1e-6)
    assert float(rms(found.difference).min()) > 0


def test_a_critic_that_is_the_teacher_finds_no_difference(opened: OpenedRun) -> None:
    probe = Probe(opened, "soften", 1, critic="teacher")
    run = opened.run
    batch = probe.context().batch
    student, teacher = batch.student.prompt["embeds"], batch.teacher.prompt["embeds"]
    assert student.shape != teacher.shape  # its prompt alone is what is left
    run.slots.mount(run.teachers.state("soften"))  # the slot that plays the critic here
    run.dataset.pools["soften"] = tuple(replace(e, student=e.teacher) for e in run.dataset.pools["soften"])
    assert float(rms(probe.compare(probe.backward_simulated(), SIGMAS).difference).max()) == 0.0


def test_outputs_are_those_of_the_student(probe: Probe) -> None:
    context = probe.context()
    assert torch.equal(probe.backward_simulated(), context.sample())
    target, noise = probe.target(), context.random.normal((1, *context.batch.latent_shape), "target-noise")
    x = add_noise(target, noise, SIGMAS[1:2])
    with torch.no_grad():
        expected = to_x0(x, context.student(x, SIGMAS[1:2]), SIGMAS[1:2])
    assert torch.allclose(probe.target_simulated(SIGMAS)[1:2], expected, atol=1e-6)


def test_the_size_of_a_call_changes_nothing(probe: Probe) -> None:
    single = replace(probe, rows=1)
    output = probe.target_simulated(SIGMAS)
    assert torch.allclose(output, single.target_simulated(SIGMAS), atol=1e-5)
    one = output[:1]
    assert torch.allclose(probe.compare(one, SIGMAS).difference, single.compare(one, SIGMAS).difference, atol=1e-5)
    assert torch.equal(probe.picture(output), single.picture(output))


def test_the_low_step_is_one_of_the_students_below_the_bound(opened: OpenedRun) -> None:
    low = {round(float(s) * 1000, 1) for s in opened.run.schedule.sigmas()[5:]}
    drawn = {
        round(float(Probe(opened, effect, pair).drawn_low_step(750.0)) * 1000, 1)
        for effect in opened.effects
        for pair in range(2)
    }
    assert low == {642.9, 500.0, 300.0} and drawn <= low
    with pytest.raises(DataError, match="below t = 300"):
        Probe(opened, opened.effects[0], 0).drawn_low_step(300.0)


def test_a_step_in_pictures_is_the_direction_where_the_decoder_is_linear(probe: Probe) -> None:
    base = probe.opened.run.base
    output = 0.5 * torch.tanh(probe.target_simulated(SIGMAS[:1]))  # away from black and white, where decoding stops
    direction = torch.randn(2, *output.shape[1:], generator=torch.Generator().manual_seed(3))
    found = probe.step_in_pictures(output, 7.0 * direction, probe.picture(output))
    rows, columns = (int(side) for side in probe.context().batch.student.source["grids"][0][0])
    squares = (direction / rms(direction)[:, None, None]).reshape(2, rows, columns, 4, 4, 3).transpose(2, 3)
    exact = luma(squares.reshape(2, rows * 4, columns * 4, 3).permute(0, 3, 1, 2))
    assert base.name == "tiny-base" and found.shape == exact.shape
    assert cosine(found, exact).min() > 0.9  # seen through 8 bits, one of which is a third of this step
    assert (rms(found) / rms(exact)).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
