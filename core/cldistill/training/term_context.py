"""The context of one update, made by the trainer and given to every loss term: models, rollout, schedule, randomness."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from cldistill.adapters.slots import TEACHER
from cldistill.protocols import Keyed
from cldistill.records import MIDDLE, STUDENT, Batch, Conditioning, Rollout, find_block
from cldistill.schedule import Schedule, to_x0
from cldistill.training.run import Run


@dataclass
class UpdateMemo:
    """Results that the terms of one update share: the rollout, the student's sample, and graded calls at the rollout."""

    rollout: Rollout | None = None
    sample: Tensor | None = None
    graded: dict[tuple[str, str | None], Tensor] = field(default_factory=dict)
    """(slot, block or None) -> what it gave at the rollout's ``x`` and ``sigma``, with its graph: until that is freed."""


@dataclass
class TermContext:
    """Implements `cldistill.protocols.UpdateContext` for one term of one update."""

    run: Run
    step: int
    trains: str
    batch: Batch
    shared: Keyed
    """Keyed to the update: the rollout is drawn from it, so that all terms see the same one."""
    random: Keyed
    """Keyed to the term."""
    memo: UpdateMemo = field(default_factory=UpdateMemo)
    term: str = ""
    """Name of the term whose context it is."""

    @property
    def schedule(self) -> Schedule:
        """The student's sampler."""
        return self.run.schedule

    def for_term(self, name: str) -> TermContext:
        """Return the same update seen by another term."""
        return replace(self, random=self.random_of(name), term=name)

    def random_of(self, term: str) -> Keyed:
        """Return the randomness of another term of this update: for drawing what that one draws."""
        return self.shared.child("term", term)

    def student(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Velocity of the student slot on the student's prompt."""
        return self.slot(STUDENT, x, sigma)

    def slot(self, name: str, x: Tensor, sigma: Tensor) -> Tensor:
        """Velocity of a slot on the student's prompt; with grad for the slot in training, or where ``x`` asks for it."""
        return self._graded(name, x, sigma, None)

    def features(self, slot: str, x: Tensor, sigma: Tensor, at: str = MIDDLE) -> Tensor:
        """Activations of a block of the base under a slot, on the student's prompt; with grad as for `slot`."""
        return self._graded(slot, x, sigma, find_block(self.run.base.blocks, at))

    def _graded(self, name: str, x: Tensor, sigma: Tensor, at: str | None) -> Tensor:
        """Call a slot; at the rollout, where several terms may ask for the same, with one graph for all of them."""
        wanted = torch.is_grad_enabled() and (name == self.trains or x.requires_grad)
        rollout, key = self.memo.rollout, (name, at)
        shared = wanted and rollout is not None and x is rollout.x and sigma is rollout.sigma
        if shared and key in self.memo.graded:
            return self.memo.graded[key]
        with torch.set_grad_enabled(wanted):
            result = self._predict(name, x, sigma, self.batch.student, at)
        if shared:
            self.memo.graded[key] = result
        return result

    def module(self, term: str | None = None) -> nn.Module:
        """The module of this term, or of another term of the run."""
        return self.run.modules[self.term if term is None else term].module

    @torch.no_grad()
    def teacher(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Guided velocity of each item's teacher (the bare base for general items) on the teacher's prompt: a call a share."""
        batch = self.batch
        if len(batch.shares) == 1:
            return self._taught(batch.shares[0].effect, x, sigma, batch.teacher, batch.unconditional)
        velocity = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        for share in batch.shares:
            rows = list(share.rows)
            own, empty = batch.teacher.rows(rows), batch.unconditional.rows(rows)
            velocity[rows] = self._taught(share.effect, x[rows], sigma[rows], own, empty).float()
        return velocity

    def _taught(self, effect: str | None, x: Tensor, sigma: Tensor, own: Conditioning, empty: Conditioning) -> Tensor:
        """Mount one teacher and call it."""
        run, base = self.run, self.run.base
        run.teachers.mount(run.slots, effect)
        conditional = self._predict(TEACHER, x, sigma, own)
        if base.guidance_scale == 1.0 or run.slots.mounted_few_step is not None:
            return conditional  # a distilled network has its guidance built in
        unconditional = self._predict(TEACHER, x, sigma, empty)
        return base.guide(conditional, unconditional, base.guidance_scale, base.guidance_mode)

    def _predict(
        self, name: str, x: Tensor, sigma: Tensor, conditioning: Conditioning, at: str | None = None
    ) -> Tensor:
        self.run.forwards += 1
        base, source, prompt = self.run.base, conditioning.source, conditioning.prompt
        with self.run.slots.scope(name):
            return base.predict(x, sigma, source, prompt) if at is None else base.features(x, sigma, source, prompt, at)

    @torch.no_grad()
    def rollout(self) -> Rollout:
        """Roll the student out from pure noise to step ``k ~ U{0..steps-1}`` and stop there (DMD2 section 4.5).

        One ``k`` for the whole batch and all ranks: a depth per sample would run to the batch's deepest.
        """
        if self.memo.rollout is None:
            self.memo.rollout = self._roll_out()
        return self.memo.rollout

    def _roll_out(self) -> Rollout:
        shape = (self.batch.size, *self.batch.latent_shape)
        sigmas = self.schedule.sigmas(self.device).unsqueeze(1).expand(-1, self.batch.size)
        k = self.shared.integer(self.schedule.steps, "depth")
        x = self.shared.normal(shape, "rollout", "start")
        for index in range(k):
            x0 = to_x0(x, self.student(x, sigmas[index]), sigmas[index])
            x = self.schedule.renoise(x0, self.shared.normal(shape, "rollout", index), sigmas[index + 1])
        return Rollout(x, sigmas[k], k)

    @torch.no_grad()
    def sample(self) -> Tensor:
        """The student's ``x0`` at the rollout's step."""
        if self.memo.sample is None:
            rollout = self.rollout()
            self.memo.sample = to_x0(rollout.x, self.student(rollout.x, rollout.sigma), rollout.sigma)
        return self.memo.sample

    def keep_sample(self, x0: Tensor) -> None:
        """Offer a graded call's ``x0`` at the rollout's step as this update's sample."""
        self.memo.sample = x0.detach()

    @property
    def device(self) -> str:
        """The torch device that the tensors of this update are on."""
        return str(self.run.accelerator.device)
