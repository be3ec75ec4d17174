"""Making pictures: which adapters work, by which sampler, and the batches in which it is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from cldistill.adapters.slots import FROZEN, AdapterSlots
from cldistill.data.dataset import Dataset, Example, by_batch_key
from cldistill.data.encodings import Encoder
from cldistill.precision import precision_key
from cldistill.protocols import BaseModel
from cldistill.random import KeyedRandom
from cldistill.records import Batch, Item, Prompts, Route
from cldistill.sampling.samplers import Noise, euler, few_step, guided, predictor
from cldistill.sampling.targets import SAMPLE_BATCH, TOKEN_BUDGET
from cldistill.schedule import Schedule
from cldistill.storage.tensors import content_key
from cldistill.weights import AdapterState

if TYPE_CHECKING:
    from PIL.Image import Image

Row = tuple[Item, Prompts]


@dataclass(frozen=True)
class Way:
    """How pictures are made."""

    schedule: Schedule
    few_step: bool
    """Consistency sampling without guidance, as the student; else Euler's method, guided as the base says."""
    told: Literal["student", "teacher"] = "teacher"
    """Which of an item's prompts the network hears."""
    adapters: tuple[AdapterState, ...] = ()
    """Mounted at once, their deltas add up; none (and no slot): the bare base."""
    slot: str | None = None
    """A trained slot of the run that works, too."""
    slot_digest: str = ""
    """Hash of that slot's weights."""

    def evaluations(self, base: BaseModel) -> int:
        """Return the backbone's calls for one picture."""
        return self.schedule.steps * (1 if self.few_step or base.target_guidance_scale == 1.0 else 2)


def slot_digest(slots: AdapterSlots, name: str) -> str:
    """Hash the weights of a trained slot as they stand, and its alpha."""
    found = hashlib.sha256(repr(slots.alpha(name)).encode())
    for key, value in sorted(slots.state(name).items()):
        found.update(key.encode() + value.float().cpu().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Painter:
    """Makes pictures of items in any way, the same ones whatever else is made beside them."""

    base: BaseModel
    slots: AdapterSlots
    encoder: Encoder
    device: str = "cpu"
    seed: int = 1

    @property
    def random(self) -> KeyedRandom:
        """The noise depends on seed, item and step alone: different ways start from the same noise."""
        return KeyedRandom(self.seed, device=self.device).child("evaluate")

    def key(self, way: Way, item: Item, prompts: Prompts) -> str:
        """Hash everything that one picture depends on."""
        base, schedule = self.base, way.schedule
        text = prompts.student if way.told == "student" else prompts.teacher
        guidance: tuple[str | float, ...] = ()
        if not way.few_step and base.target_guidance_scale != 1.0:
            guidance = (base.target_guidance_scale, base.target_guidance_mode, prompts.unconditional)
        return content_key(
            "edited-picture", base.fingerprint, "few-step" if way.few_step else "euler", schedule.steps,
            schedule.shift, schedule.integer_timesteps, way.slot_digest, *(state.digest for state in way.adapters),
            "told", text, item.key, *(self.encoder.file_digest(path) for path in item.sources), self.seed, *guidance,
            *precision_key(base),
        )  # fmt: skip

    def paint(self, way: Way, rows: Sequence[Row]) -> Iterator[list[tuple[int, Image]]]:
        """Yield batches of (index of the row, its picture); rows of one pool."""
        examples = [self.encoder.example(item, prompts) for item, prompts in rows]
        for chunk in batches(examples):
            made = self._make(way, [examples[index] for index in chunk])
            yield list(zip(chunk, made, strict=True))

    @torch.no_grad()
    def _make(self, way: Way, examples: Sequence[Example]) -> list[Image]:
        route = Route("sampling", {examples[0].item.pool: 1.0})
        batch = Dataset(self.base, {}).collate(route, [replace(e, target=None) for e in examples], self.device)
        names = FROZEN[: len(way.adapters)]
        for name, state in zip(names, way.adapters, strict=True):
            self.slots.mount(state, name)
        with self.slots.scope(way.slot, *names):
            x0 = self._few_step(way, batch) if way.few_step else self._euler(way, batch)
        return self.base.decode(x0, batch.student.source)

    def _euler(self, way: Way, batch: Batch) -> torch.Tensor:
        told, base = batch.student if way.told == "student" else batch.teacher, self.base
        predict = guided(
            base, told.source, told.prompt, batch.unconditional.prompt,
            base.target_guidance_scale, base.target_guidance_mode,
        )  # fmt: skip
        return euler(predict, way.schedule.sigmas(self.device), self._noise(batch, None))

    def _few_step(self, way: Way, batch: Batch) -> torch.Tensor:
        told = batch.student if way.told == "student" else batch.teacher
        noise: Noise = lambda step: self._noise(batch, step)  # noqa: E731
        return few_step(predictor(self.base, told.source, told.prompt), way.schedule, noise)

    def _noise(self, batch: Batch, step: int | None) -> torch.Tensor:
        keys = [("noise", item.key, *(() if step is None else (step,))) for item in batch.items]
        return torch.cat([self.random.normal((1, *batch.latent_shape), *key, per_rank=False) for key in keys])


def batches(examples: Sequence[Example]) -> list[list[int]]:
    """Group indices of examples by batch key into batches that fit the token budget."""
    found = []
    for group in by_batch_key(examples):
        size = max(1, min(SAMPLE_BATCH, TOKEN_BUDGET // max(1, examples[group[0]].shape[0])))
        found += [group[start : start + size] for start in range(0, len(group), size)]
    return found
