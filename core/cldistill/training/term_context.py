"""The context of one update, made by the trainer and given to every loss term: models, rollout, schedule, randomness."""

from __future__ import annotations

from contextlib import nullcontext
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
    """Results that the terms of one update share: the student's trajectory as far as it was needed, and graded calls."""

    random: Keyed
    """From which the trajectory is drawn: that of the update that began it."""
    k: int | None = None
    """The step at which the rollout stops, once it is drawn."""
    path: list[Rollout] = field(default_factory=list)
    """The trajectory at each of the sampler's steps, from the first on."""
    samples: dict[int, Tensor] = field(default_factory=dict)
    """The student's ``x0`` at those steps."""
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
    memo: UpdateMemo
    term: str = ""
    """Name of the term whose context it is."""

    @classmethod
    def begin(cls, run: Run, step: int, trains: str, batch: Batch, random: Keyed) -> TermContext:
        """Return the context of a new update, of which nothing has been computed."""
        return cls(run, step, trains, batch, random, random, UpdateMemo(random))

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
        key, k, path = (name, at), self.memo.k, self.memo.path
        stop = path[k] if k is not None and k < len(path) else None
        shared = wanted and stop is not None and x is stop.x and sigma is stop.sigma
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
        run.slots.mount(None if effect is None else run.teachers.state(effect))
        conditional = self._predict(TEACHER, x, sigma, own)
        scale, few_step = base.guidance_scale, run.slots.mounted_few_step is not None
        # A few-step network has its guidance built in; but ranks that share a base make as many calls for mixed batches.
        if scale == 1.0 or (few_step and (run.alone is nullcontext or len(self.batch.route.pools) == 1)):
            return conditional
        unconditional = self._predict(TEACHER, x, sigma, empty)
        return conditional if few_step else base.guide(conditional, unconditional, scale, base.guidance_mode)

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
        return self._at(self._depth())

    def _depth(self) -> int:
        if self.memo.k is None:
            self.memo.k = self.memo.random.integer(self.schedule.steps, "depth")
        return self.memo.k

    def _at(self, step: int) -> Rollout:
        """Follow the student's trajectory to a step of the sampler, from where it was left."""
        path, random = self.memo.path, self.memo.random
        shape = (self.batch.size, *self.batch.latent_shape)
        sigmas = self.schedule.sigmas(self.device).unsqueeze(1).expand(-1, self.batch.size)
        if not path:
            path.append(Rollout(random.normal(shape, "rollout", "start"), sigmas[0], 0))
        for index in range(len(path), step + 1):
            before, x0 = path[-1], self._sample_at(index - 1)
            noise = random.normal(shape, "rollout", index - 1)
            x = self.schedule.advance(before.x, before.sigma, x0, sigmas[index], noise)
            path.append(Rollout(x, sigmas[index], index))
        return path[step]

    def _sample_at(self, step: int) -> Tensor:
        if step not in self.memo.samples:
            at = self._at(step)
            self.memo.samples[step] = to_x0(at.x, self.student(at.x, at.sigma), at.sigma)
        return self.memo.samples[step]

    @torch.no_grad()
    def sample(self) -> Tensor:
        """The student's ``x0`` at the rollout's step."""
        return self._sample_at(self.rollout().k)

    def keep_sample(self, x0: Tensor) -> None:
        """Offer a graded call's ``x0`` at the rollout's step as this update's sample."""
        self.memo.samples[self._depth()] = x0.detach()

    @property
    def device(self) -> str:
        """The torch device that the tensors of this update are on."""
        return str(self.run.accelerator.device)
