"""Samplers: the student's few steps, and plain Euler for teachers.

Pure functions of predictors: the caller has entered the adapter scope, and decides about gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cldistill.schedule import Schedule, to_x0

if TYPE_CHECKING:
    from cldistill.protocols import BaseModel, GuidanceMode
    from cldistill.records import Tensors

Predictor = Callable[[Tensor, Tensor], Tensor]
"""``(x [B, ...], sigma [B]) -> v [B, ...]``."""
Noise = Callable[[int], Tensor]
"""``step -> noise [B, ...]``: step 0 is where sampling starts, step k > 0 re-noises to the k-th sigma."""


def predictor(base: BaseModel, source: Tensors, prompt: Tensors) -> Predictor:
    """Return the base's velocity for a collated source and prompt, under whatever adapter is active."""
    return lambda x, sigma: base.predict(x, sigma, source, prompt)


def guided(
    base: BaseModel, source: Tensors, prompt: Tensors, unconditional: Tensors, scale: float, mode: GuidanceMode
) -> Predictor:
    """Return the guided velocity; ``scale`` 1 costs one call, anything else two."""
    if scale == 1.0:
        return predictor(base, source, prompt)

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        conditional = base.predict(x, sigma, source, prompt)
        return base.guide(conditional, base.predict(x, sigma, source, unconditional), scale, mode)

    return predict


def few_step(predict: Predictor, schedule: Schedule, noise: Noise) -> Tensor:
    """Sample ``x0`` as the student does: predict ``x0``, take it to the next sigma (arXiv 2605.25378 section 2).

    Equal to diffusers' scheduler (see `Schedule`) given the same noise (a test holds the difference to zero in fp32).
    """
    x = noise(0)
    sigmas = schedule.sigmas(x.device).unsqueeze(1).expand(-1, x.shape[0])
    x0 = to_x0(x, predict(x, sigmas[0]), sigmas[0])
    for step in range(1, len(sigmas)):
        x = schedule.advance(x, sigmas[step - 1], x0, sigmas[step], noise(step))
        x0 = to_x0(x, predict(x, sigmas[step]), sigmas[step])
    return x0


def euler(predict: Predictor, sigmas: Tensor, noise: Tensor) -> Tensor:
    """Integrate from ``noise`` ``[B, ...]`` through descending ``sigmas`` ``[steps]`` to 0 by Euler's method.

    ``Schedule(40, 3.0).sigmas()`` gives a teacher's 40 steps under the same rule as the student's.
    """
    x = noise
    following = torch.cat([sigmas[1:], sigmas.new_zeros(1)]).to(x.device)
    for value, after in zip(sigmas.to(x.device), following, strict=True):
        x = x + (after - value) * predict(x, value.expand(x.shape[0]))
    return x
