"""Targets ``y`` of TS-DMD and TA-FM: the teacher's own output on each source (method.md, "Target y"), sampled once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cldistill.cache import content_key
from cldistill.dataset import Dataset, Example
from cldistill.encodings import Encoder
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import Route
from cldistill.sample import euler, guided
from cldistill.schedule import Schedule

if TYPE_CHECKING:
    from cldistill.adapters import AdapterSlots

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
        """Return ``x0`` ``[B, ...]`` of the network in ``slot`` for examples of one shape, by plain Euler steps.

        ``prompt`` says which of the example's prompts it is told (``teacher`` or ``student``).
        """
        route = Route("sampling", {examples[0].item.pool: 1.0})
        batch = Dataset(self.base, {}).collate(route, [replace(e, target=None) for e in examples], self.device)
        told = batch.student if prompt == "student" else batch.teacher
        noise = torch.cat([self.random.normal((1, *e.shape), "noise", e.item.key, per_rank=False) for e in examples])
        base = self.base
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


def target_key(encoder: Encoder, sampler: TeacherSampler, example: Example, prompt: str, digest: str) -> str:
    """Hash everything that a sampled target depends on."""
    base, schedule = sampler.base, sampler.schedule
    return content_key(
        "sampled-target", base.fingerprint, digest, prompt, encoder.item_digest(example.item), example.item.key,
        schedule.steps, schedule.shift, base.target_guidance_scale, base.target_guidance_mode, sampler.random.seed,
    )  # fmt: skip


def sample_missing(
    encoder: Encoder, sampler: TeacherSampler, work: Sequence[tuple[Example, str]], slot: str | None,
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Sample and cache the target of every (example, key) that the cache does not hold yet."""
    missing = [(example, key) for example, key in work if not encoder.cache.has(key)]
    advance(len(work) - len(missing))
    for chunk in _chunks(missing):
        latents = sampler.sample([example for example, _ in chunk], slot)
        for (_, key), latent in zip(chunk, latents, strict=True):
            encoder.cache.get(key, lambda latent=latent: {"x0": latent})  # type: ignore[misc]
        advance(len(chunk))


def _chunks(work: Sequence[tuple[Example, str]]) -> Iterator[list[tuple[Example, str]]]:
    """Group work by latent shape, and into batches that fit the token budget."""
    groups: dict[tuple[int, ...], list[tuple[Example, str]]] = defaultdict(list)
    for entry in work:
        groups[entry[0].shape].append(entry)
    for shape, entries in groups.items():
        size = max(1, min(SAMPLE_BATCH, TOKEN_BUDGET // max(1, shape[0])))
        for start in range(0, len(entries), size):
            yield entries[start : start + size]


def with_target(encoder: Encoder, example: Example, key: str) -> Example:
    """Return the example with the cached target under ``key``."""

    def load() -> Tensor:
        def absent() -> dict[str, Tensor]:
            raise RuntimeError(f"the sampled target of {example.item.key} left the cache during the run")

        return encoder.cache.get(key, absent)["x0"]

    return replace(example, target=load)
