"""Compare critic and teacher at one noise level: the part of BS-DMD and TS-DMD that is the same."""

from __future__ import annotations

import torch
from torch import Tensor

from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput
from cldistill.schedule import add_noise, to_x0
from cldistill_plugins.collectionlora.dmd import dmd_gradient, dmd_loss


def distribution_matching(
    context: UpdateContext, student_x0: Tensor, sigma: Tensor, critic: str, real: str | None = None
) -> LossOutput:
    """Noise ``student_x0`` ``[B, ...]`` to ``sigma`` ``[B]`` and pull it along the DMD gradient.

    The critic sees the student's prompt, the teacher its own (section 3.2); neither gets a gradient.  The slot ``real``, where
    there is one, stands in for the teacher and sees the student's prompt.
    """
    with torch.no_grad():
        clean = student_x0.detach()
        noised = add_noise(clean, context.random.normal(clean.shape, "score-noise"), sigma)
        fake = to_x0(noised, context.slot(critic, noised, sigma), sigma)
        taught = context.teacher(noised, sigma) if real is None else context.slot(real, noised, sigma)
        result = dmd_gradient(fake, to_x0(noised, taught, sigma), clean)
    # Read together: on a GPU every read waits for all that was asked for before it.
    told = torch.stack([result.gradient.square().mean().sqrt(), result.normaliser.mean(), sigma.mean()]).tolist()
    metrics = dict(zip(("gradient", "distance", "sigma"), told, strict=True))
    return LossOutput(dmd_loss(student_x0, result.gradient), metrics)


def uniform(context: UpdateContext, size: int, purpose: str) -> Tensor:
    """Draw ``[size]`` uniform numbers of this term, one an item."""
    return context.random.uniforms(size, purpose)
