"""The loss ``recall``: on an old effect the student goes on predicting what the collection before it predicts.

Learning without forgetting (Li and Hoiem, arXiv 1606.09282), on the student's own trajectory as in BS-DMD (arXiv 2605.25378
section 3.3).  A collection is a few-step sampler and no score: distribution matching against it sharpens what is sharp already,
and after four additions of that the distance of fifty old effects to their truth had grown by a tenth (EffectBench, table 5).
"""

from __future__ import annotations

from cldistill.component import Forwards, Needs, Settings
from cldistill.protocols import UpdateContext
from cldistill.records import LossOutput


class RecallSettings(Settings):
    """``recall`` has no options: its weight is the manifest's."""


def describe_recall(settings: RecallSettings) -> Needs:
    """One graded call and one of the teacher, on a rollout; no targets, no critic."""
    return Needs(slot="student", teacher=True, forwards=Forwards(rollout=True, graded=1, shared=1, teacher=1))


class Recall:
    """``|| v_student(x_k, sigma_k, c_student) - v_before(x_k, sigma_k, c_teacher) ||^2`` at a step of the student's rollout."""

    def __call__(self, context: UpdateContext) -> LossOutput:
        """Return the loss of one update, averaged over batch and latent."""
        from torch.nn.functional import mse_loss

        from cldistill.schedule import to_x0

        rollout = context.rollout()
        predicted = context.student(rollout.x, rollout.sigma)
        context.keep_sample(to_x0(rollout.x, predicted, rollout.sigma))
        before = context.teacher(rollout.x, rollout.sigma)
        return LossOutput(mse_loss(predicted.float(), before.float()), {"k": float(rollout.k)})
