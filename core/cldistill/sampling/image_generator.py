"""The one image generator: adapters, sampler and prompt as a `SamplingConfig` says, in batches that fit the memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cldistill.adapters.slots import FROZEN, AdapterSlots
from cldistill.data.dataset import Dataset, Example
from cldistill.data.encodings import Encoder
from cldistill.precision import precision_key
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import Item, Prompts, Route, Tensors
from cldistill.sampling.samplers import euler, few_step, guided, predictor
from cldistill.schedule import Schedule
from cldistill.storage.tensors import content_key
from cldistill.weights import AdapterState

if TYPE_CHECKING:
    from PIL.Image import Image

SAMPLE_BATCH = 16
"""Pictures sampled at once; memory-bound bases are given fewer by their token count."""
TOKEN_BUDGET = 8192

Row = tuple[Item, Prompts]


@dataclass(frozen=True)
class SamplingConfig:
    """The adapters, the sampler and the prompt of one way to make pictures; one for each evaluated system and teacher."""

    schedule: Schedule
    few_step: bool
    """The schedule's own sampling without guidance, as the student; else Euler's method, guided as the base says."""
    told: Literal["student", "teacher"] = "teacher"
    """The one of an item's prompts that the network hears."""
    adapters: tuple[AdapterState, ...] = ()
    """Mounted at once, their deltas add up; none (and no slot): the bare base."""
    slot: str | None = None
    """A trained slot of the run that works, too."""
    slot_digest: str = ""
    """Hash of that slot's weights."""

    @classmethod
    def of_teacher(cls, state: AdapterState | None, schedule: Schedule) -> SamplingConfig:
        """Return how a teacher is sampled; None is the bare base.

        One that had few-step sampling distilled into it (a frozen collection) makes its own few steps, without guidance.
        """
        if state is not None and state.few_step is not None:
            return cls(state.few_step, True, adapters=(state,))
        return cls(schedule, False, adapters=() if state is None else (state,))

    def evaluations(self, base: BaseModel) -> int:
        """Return the backbone's calls for one picture."""
        return self.schedule.steps * (1 if self.few_step or base.target_guidance_scale == 1.0 else 2)


@dataclass(frozen=True)
class ImageGenerator:
    """Samples latents and pictures of items under any sampling config, the same ones whatever else is made beside them."""

    base: BaseModel
    slots: AdapterSlots
    encoder: Encoder
    device: str = "cpu"
    seed: int = 1
    purpose: str = "evaluate"
    """Part of the noise's key: targets and held-out pictures start from different noise."""

    @property
    def random(self) -> KeyedRandom:
        """The noise depends on seed, purpose, item and step alone: all configs start from the same noise."""
        return KeyedRandom(self.seed, device=self.device).child(self.purpose)

    def key(self, config: SamplingConfig, item: Item, prompts: Prompts) -> str:
        """Hash everything that one picture depends on."""
        base, schedule = self.base, config.schedule
        text = prompts.student if config.told == "student" else prompts.teacher
        guidance: tuple[str | float, ...] = ()
        if not config.few_step and base.target_guidance_scale != 1.0:
            guidance = (base.target_guidance_scale, base.target_guidance_mode, prompts.unconditional)
        return content_key(
            "edited-picture", base.fingerprint, "few-step" if config.few_step else "euler", schedule.steps,
            schedule.shift, schedule.integer_timesteps, config.slot_digest, *(state.digest for state in config.adapters),
            "told", text, item.key, *(self.encoder.file_digest(path) for path in item.sources), self.seed, *guidance,
            *(() if schedule.terminal is None else (schedule.terminal,)), *precision_key(base),
            *(() if schedule.stochastic else ("deterministic",)),
        )  # fmt: skip

    def pictures(
        self, config: SamplingConfig, rows: Sequence[Row], wanted: Collection[int] | None = None
    ) -> Iterator[list[tuple[int, Image]]]:
        """Yield batches of (index of the row, its picture); rows of one pool, ``wanted`` as `latents` says."""
        examples = [self.encoder.example(item, prompts) for item, prompts in rows]
        for chunk, x0, source in self.latents(config, examples, wanted):
            yield list(zip(chunk, self.base.decode(x0, source), strict=True))

    def latents(
        self, config: SamplingConfig, examples: Sequence[Example], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[list[int], Tensor, Tensors]]:
        """Yield batches of (indices of the examples, their ``x0`` ``[B, ...]``, their collated source).

        ``wanted``: only batches with one of these indices in them.  A batch is always sampled whole: in another company the
        last bits of a picture differ, and a resumed run would not end as the unbroken one.
        """
        for chunk in batches(examples):
            if wanted is not None and not any(index in wanted for index in chunk):
                continue
            yield chunk, *self._sample(config, [examples[index] for index in chunk])

    @torch.no_grad()
    def _sample(self, config: SamplingConfig, examples: Sequence[Example]) -> tuple[Tensor, Tensors]:
        base, route = self.base, Route("sampling", {examples[0].item.pool: 1.0})
        batch = Dataset(base, {}).collate(route, [replace(e, target=None) for e in examples], self.device)
        told = batch.student if config.told == "student" else batch.teacher
        names = FROZEN[: len(config.adapters)]
        for name, state in zip(names, config.adapters, strict=True):
            self.slots.mount(state, name)

        def noise(*step: int) -> Tensor:
            shape = (1, *batch.latent_shape)
            return torch.cat([self.random.normal(shape, "noise", i.key, *step, per_rank=False) for i in batch.items])

        with self.slots.scope(config.slot, *names):
            if config.few_step:
                x0 = few_step(predictor(base, told.source, told.prompt), config.schedule, noise)
            else:
                predict = guided(
                    base, told.source, told.prompt, batch.unconditional.prompt,
                    base.target_guidance_scale, base.target_guidance_mode,
                )  # fmt: skip
                x0 = euler(predict, config.schedule.sigmas(self.device), noise())
        return x0, batch.student.source


def batches(examples: Sequence[Example]) -> list[list[int]]:
    """Group indices of examples by batch key into batches that fit the token budget."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.batch_key, []).append(index)
    found = []
    for group in groups.values():
        size = max(1, min(SAMPLE_BATCH, TOKEN_BUDGET // max(1, examples[group[0]].shape[0])))
        found += [group[start : start + size] for start in range(0, len(group), size)]
    return found
