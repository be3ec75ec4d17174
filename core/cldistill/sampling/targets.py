"""Targets ``y`` of TS-DMD and TA-FM: the teacher's own output on each source (method.md, "Target y"), sampled once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cldistill.adapters.slots import TEACHER
from cldistill.data.dataset import Dataset, Example, by_batch_key
from cldistill.data.encodings import Encoder
from cldistill.errors import DataError
from cldistill.precision import precision_key
from cldistill.progress.signals import heed, never
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import Prompts, Route
from cldistill.sampling.samplers import Noise, euler, few_step, guided, predictor
from cldistill.schedule import Schedule
from cldistill.storage.tensors import content_key

if TYPE_CHECKING:
    from cldistill.adapters.slots import AdapterSlots

SAMPLE_BATCH = 16
"""Teacher samples drawn at once; memory-bound bases are given fewer by their token count."""
TOKEN_BUDGET = 8192


@dataclass(frozen=True)
class TeacherSampler:
    """Samples the teacher of one pool with its own guidance."""

    base: BaseModel
    slots: AdapterSlots
    schedule: Schedule
    random: KeyedRandom
    device: str = "cpu"

    @torch.no_grad()
    def sample(self, examples: Sequence[Example], slot: str | None, prompt: str = "teacher") -> Tensor:
        """Return ``x0`` ``[B, ...]`` of the network in ``slot`` for examples of one batch key, by plain Euler steps.

        ``prompt`` says which of the example's prompts it is told (``teacher`` or ``student``).  A teacher that had few-step
        sampling distilled into it makes its own few steps instead, without guidance.
        """
        route = Route("sampling", {examples[0].item.pool: 1.0})
        batch = Dataset(self.base, {}).collate(route, [replace(e, target=None) for e in examples], self.device)
        told = batch.student if prompt == "student" else batch.teacher
        base, few = self.base, self.slots.mounted_few_step if slot == TEACHER else None
        if few is not None:
            with self.slots.scope(slot):
                return few_step(predictor(base, told.source, told.prompt), few, self._noise(examples))
        noise = torch.cat([self.random.normal((1, *e.shape), "noise", e.item.key, per_rank=False) for e in examples])
        predict = guided(
            base,
            told.source,
            told.prompt,
            batch.unconditional.prompt,
            base.target_guidance_scale,
            base.target_guidance_mode,
        )
        with self.slots.scope(slot):
            return euler(predict, self.schedule.sigmas(self.device), noise)

    def _noise(self, examples: Sequence[Example]) -> Noise:
        """Noise of every step by the item's key, as `cldistill.samples.RunSampler` draws it for the student."""

        def draw(step: int) -> Tensor:
            keys = [("noise", example.item.key, step) for example in examples]
            rows = zip(keys, examples, strict=True)
            return torch.cat([self.random.normal((1, *e.shape), *key, per_rank=False) for key, e in rows])

        return draw


def target_key(encoder: Encoder, sampler: TeacherSampler, example: Example, prompts: Prompts, digest: str) -> str:
    """Hash everything that a sampled target depends on: with guidance that is the unconditional prompt, too."""
    base, schedule = sampler.base, sampler.schedule
    guided_by = [prompts.unconditional] if base.target_guidance_scale != 1.0 else []
    return content_key(
        "sampled-target", base.fingerprint, digest, prompts.teacher, encoder.item_digest(example.item),
        example.item.key, schedule.steps, schedule.shift, base.target_guidance_scale, base.target_guidance_mode,
        sampler.random.seed, *guided_by, *precision_key(base),
    )  # fmt: skip


def sample_missing(
    encoder: Encoder, sampler: TeacherSampler, work: Sequence[tuple[Example, str]], slot: str | None,
    advance: Callable[[int], None], stop: Callable[[], bool] = never,
) -> None:  # fmt: skip
    """Sample and cache the target of every (example, key) that the cache does not hold yet.

    Raises:
        Stopped: ``stop`` said so, between two batches; what was sampled is kept.
    """
    missing = [(example, key) for example, key in work if not encoder.cache.has(key)]
    advance(len(work) - len(missing))
    for chunk in _chunks(missing):
        heed(stop, "sampling targets")
        latents = sampler.sample([example for example, _ in chunk], slot)
        for (_, key), latent in zip(chunk, latents, strict=True):
            encoder.cache.get(key, lambda latent=latent: {"x0": latent})  # type: ignore[misc]
        advance(len(chunk))


def _chunks(work: Sequence[tuple[Example, str]]) -> Iterator[list[tuple[Example, str]]]:
    """Group work by batch key, and into batches that fit the token budget."""
    for group in by_batch_key([example for example, _ in work]):
        size = max(1, min(SAMPLE_BATCH, TOKEN_BUDGET // max(1, work[group[0]][0].shape[0])))
        for start in range(0, len(group), size):
            yield [work[index] for index in group[start : start + size]]


def with_target(encoder: Encoder, example: Example, key: str) -> Example:
    """Return the example with the cached target under ``key``."""

    def load() -> Tensor:
        def absent() -> dict[str, Tensor]:
            raise DataError(
                f"the sampled target of {example.item.key} has left the cache during the run, or was damaged there "
                f"({encoder.cache.path(key)}): run the same command again, it samples what is missing and goes on from "
                "the last checkpoint. Do not empty the cache while a run uses it"
            )

        return encoder.cache.get(key, absent)["x0"]

    return replace(example, target=load)
