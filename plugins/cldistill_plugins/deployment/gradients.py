"""Interference of effects as conflict of their gradients at one point of the student (PCGrad, arXiv 2001.06782 section 2.2).

For each effect the gradient of the flow-matching loss that anchors it (TA-FM, arXiv 2605.25378 section 3.3) with respect
to the student's LoRA is averaged over several batches.  The cosine of two effects' gradients is below 0 where a step for
one is a step against the other.

A LoRA has up to a thousand million parameters, and a bank 180 effects: gradients are kept as count sketches (Charikar et
al. 2002; feature hashing, arXiv 0902.2206), which keep inner products up to about ``1 / sqrt(sketch)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cldistill.errors import DataError
from cldistill.protocols import UpdateContext
from cldistill.schedule import add_noise, velocity
from cldistill.training.run import Run
from cldistill_plugins.deployment.group_run import GroupRequest

STUDENT = "student"


def flow_matching(context: UpdateContext) -> Tensor:
    """``|| v_student(y_sigma, sigma, c_student) - (noise - y) ||^2``, averaged over batch and latent.

    Raises:
        DataError: the batch has no targets.
    """
    target = context.batch.target
    if target is None:
        raise DataError("gradients are measured on targets, and this manifest has none: give its effects pairs")
    draw = context.random.uniforms(target.shape[0], "sigma")
    sigma = context.schedule.draw(draw)
    noise = context.random.normal(target.shape, "noise")
    return mse_loss(context.student(add_noise(target, noise, sigma), sigma).float(), velocity(target, noise))


def measure(
    request: GroupRequest, *, batches: int, warm_up: int, lr: float, sketch: int, seed: int = 0
) -> tuple[Tensor, float]:
    """Return the cosines ``[n, n]`` of the effects' mean gradients, and their reliability.

    Reliability is the correlation, over all pairs of effects, of the cosines from the even batches with those from the odd
    ones: near 1 the matrix would come out the same if measured again, near 0 it is noise (``nan``: fewer than 3 effects).

    Args:
        batches: Batches an effect, at least 2.
        warm_up: AdamW steps on batches that go round the effects, so that gradients are compared where what all effects
            share is learned already; the student's weights are put back afterwards.
        lr: Learning rate of the warm-up.
        sketch: Numbers that are kept of each gradient.
        seed: Of the sketch.
    """
    names = [effect.name for effect in request.effects]
    run = request.run()
    done, total = 0, warm_up + batches * len(names)

    def advance() -> None:
        nonlocal done
        done += 1
        request.advance(done / total)

    with _weights_put_back(run):
        _warm_up(request, names, warm_up, lr, advance)
        parameters = list(run.slots.parameters(STUDENT).values())
        sketcher = Sketch(sum(parameter.numel() for parameter in parameters), sketch, seed)
        rows = []
        for name in names:
            draws = []
            for index in range(batches):
                draws.append(sketcher(gradient(run, request.update(name, warm_up + index))))
                advance()
            rows.append(torch.stack(draws))
    return compare(torch.stack(rows))


def gradient(run: Run, context: UpdateContext) -> Tensor:
    """Return the flat gradient ``[parameters]`` of one update's flow-matching loss."""
    return torch.cat([part.flatten() for part in _gradients(run, context)])


def _gradients(run: Run, context: UpdateContext) -> tuple[Tensor, ...]:
    """Return the gradient of each of the student's tensors, zero where the base has no use for it."""
    parameters = list(run.slots.parameters(STUDENT).values())
    with run.slots.scope(STUDENT):
        return torch.autograd.grad(flow_matching(context), parameters, materialize_grads=True)


def compare(gradients: Tensor) -> tuple[Tensor, float]:
    """Cosines ``[n, n]`` of the mean gradients, and their reliability, of sketches ``[n, batches, sketch]``."""
    cosines = _cosines(gradients.mean(dim=1))
    above = torch.triu_indices(len(cosines), len(cosines), offset=1)
    if above.shape[1] < 3:
        return cosines, float("nan")
    halves = torch.stack([_cosines(gradients[:, start::2].mean(dim=1))[above[0], above[1]] for start in (0, 1)])
    return cosines, float(torch.corrcoef(halves)[0, 1])


class Sketch:
    """Count sketch: each number is added, with a random sign, to one of ``size`` buckets; exact where all fit."""

    def __init__(self, length: int, size: int, seed: int = 0) -> None:
        self.exact = length <= size
        self.size = size
        generator = torch.Generator().manual_seed(seed)
        if not self.exact:
            self._bucket = torch.randint(size, (length,), generator=generator)
            self._sign = torch.randint(2, (length,), generator=generator, dtype=torch.int8) * 2 - 1

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sketch ``[size]`` (the vector itself where it is no longer) of ``[length]``, fp32, on the CPU."""
        values = vector.detach().float().cpu()
        if self.exact:
            return values
        return torch.zeros(self.size).index_add_(0, self._bucket, values * self._sign)


def _cosines(rows: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    return unit @ unit.T


def _warm_up(request: GroupRequest, names: Sequence[str], steps: int, lr: float, advance: Callable[[], None]) -> None:
    run = request.run()
    parameters = list(run.slots.parameters(STUDENT).values())
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    for step in range(steps):
        found = _gradients(run, request.update(names[step % len(names)], step))
        for parameter, part in zip(parameters, found, strict=True):
            parameter.grad = part
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        advance()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def _weights_put_back(run: Run) -> Iterator[None]:
    before = run.slots.state(STUDENT)
    try:
        yield
    finally:
        run.slots.load(STUDENT, before)
