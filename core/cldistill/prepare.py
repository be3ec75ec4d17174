"""Before the loop: teachers made, every encoding and target computed once, encoders dropped from memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from accelerate import Accelerator

from cldistill.adapters.slots import AdapterSlots
from cldistill.component import BuildContext
from cldistill.data.dataset import Dataset, Example
from cldistill.data.encodings import Encoder
from cldistill.data.items import item_prompts, pairs_of
from cldistill.data.teachers import TeacherBank
from cldistill.manifest.checked import CheckedManifest
from cldistill.progress.signals import never, raise_if_stopped
from cldistill.progress.stages import Stages
from cldistill.protocols import BaseModel, KnowsDigest, PromptIsolator, TeacherRequest, TeacherSource
from cldistill.records import GENERAL, EffectInfo, Item, Prompts
from cldistill.sampling.image_generator import ImageGenerator
from cldistill.sampling.targets import TeacherSampler
from cldistill.schedule import Schedule
from cldistill.weights import AdapterState

Rows = dict[str, list[tuple[Item, Prompts]]]
"""Pool -> its items, each with the prompts that its networks are told."""


def some(share: float, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``run(function, *args)`` for a share of the calls, evenly spread; the others call the function as it is."""
    due = itertools.accumulate(itertools.repeat(share))
    return lambda function, *args: run(function, *args) if next(due) % 1 < share else function(*args)


@dataclass(frozen=True)
class Preparation:
    """The loaded base model with its adapter slots, encoder and caches: made by `cldistill.assemble.load_base`, and used by
    every command that needs the model."""

    base: BaseModel
    encoder: Encoder
    schedule: Schedule
    accelerator: Accelerator
    context: BuildContext
    stages: Stages
    stop: Callable[[], bool] = never
    """Asked between two pieces of work; true ends the preparation with `cldistill.errors.Stopped`, all done work saved."""

    @cached_property
    def slots(self) -> AdapterSlots:
        """The adapters on the backbone, which is read when they are first asked for: after the encoders have gone."""
        with self.stages.stage("reading the backbone", 1) as advance:
            train = None if (manifest := self.context.outline.manifest) is None else manifest.train
            slots = AdapterSlots(self.base.backbone, train is not None and train.lora_copies)
            if train is not None and (share := float(train.gradient_checkpointing)):
                self.base.enable_gradient_checkpointing(some(share, slots.run_pinned))
            advance(1)
        return slots

    @cached_property
    def sampler(self) -> TeacherSampler:
        """Samples teachers for targets, by `schedule`."""
        device, seed = self.context.device, self.context.seed
        return TeacherSampler(
            ImageGenerator(self.base, self.slots, self.encoder, device, seed, "targets"), self.schedule
        )

    def request(self, effect: EffectInfo) -> TeacherRequest:
        """Return what the teacher source of an effect may use."""
        return TeacherRequest(
            effect=effect, items=pairs_of(effect) if effect.pairs is not None else (), base=self.base, slots=self.slots,
            encoder=self.encoder, cache=self.context.cache, device=str(self.accelerator.device), stages=self.stages,
            stop=self.stop,
        )  # fmt: skip


def teacher_bank(checked: CheckedManifest, preparation: Preparation) -> TeacherBank:
    """Return the run's teachers, each read or trained when it is first asked for: fifty of 2 GB do not fit in memory."""
    effects = {effect.name: effect for effect in checked.effects}
    sources: dict[str, TeacherSource] = {
        name: part.build(preparation.context) for name in effects if (part := checked.teachers[name]) is not None
    }

    def fetch(name: str) -> AdapterState | None:  # of one without a source nothing is asked
        return sources[name].adapter(preparation.request(effects[name])) if name in sources else None

    known = {name: source.digest for name, source in sources.items() if isinstance(source, KnowsDigest)}
    return TeacherBank({name: partial(fetch, name) for name in effects}, known=known)


def pool_rows(checked: CheckedManifest, isolator: PromptIsolator, prompts: Mapping[str, Prompts]) -> Rows:
    """Return every pool that a run draws from, each item with its prompts."""
    settled = checked.settled_prompts
    rows = {
        effect.name: [
            (item, settled.get(effect.name) or item_prompts(item, effect, prompts[effect.name]))
            for item in checked.items[effect.name]
        ]
        for effect in checked.effects
        if effect.pairs is not None
    }
    if checked.manifest.general is not None and (checked.router.needs.general or GENERAL in checked.streams):
        rows[GENERAL] = [(item, isolator.general(item.prompt)) for item in checked.items[GENERAL]]
    return rows


def prepare(
    preparation: Preparation, pools: Rows, bank: TeacherBank, paired: Collection[str], target_pools: Sequence[str]
) -> Dataset:
    """Return all pools, which are encoded, with the targets that the losses need: after-pictures in the ``paired`` pools."""
    examples = {
        name: [preparation.encoder.example(item, prompts) for item, prompts in rows] for name, rows in pools.items()
    }
    for name in target_pools:
        if name in paired:
            target = preparation.encoder.pair_target
            examples[name] = [replace(e, target=partial(target, e.item)) for e in examples[name]]
        else:
            examples[name] = _with_samples(preparation, examples[name], dict(pools[name]), name, bank)
    return Dataset(preparation.base, examples)


def encode(
    preparation: Preparation, pools: Rows, later: Sequence[tuple[Item, Prompts]], paired: Collection[str]
) -> None:
    """Compute what the cache lacks, each rank its share, and drop the encoders.

    ``later`` is what grids, report and export will show: it is encoded with the rest, so that no encoder comes back to a
    device that training has filled.
    """
    rows = [(item, prompts, name in paired) for name in sorted(pools) for item, prompts in pools[name]]
    rows += [(item, prompts, False) for item, prompts in later]
    encoder, accelerator = preparation.encoder, preparation.accelerator
    with preparation.stages.stage("encoding pictures and prompts", len(rows)) as advance:
        for index, (item, prompts, with_target) in enumerate(rows):
            raise_if_stopped(preparation.stop, "encoding pictures and prompts")
            if index % accelerator.num_processes == accelerator.process_index:
                encoder.encode(item, prompts)
                if with_target:
                    encoder.pair_target(item)
            advance(1)
    preparation.base.drop_encoders()
    accelerator.wait_for_everyone()


def _with_samples(
    preparation: Preparation, examples: Sequence[Example], prompts: Mapping[Item, Prompts], pool: str, bank: TeacherBank
) -> list[Example]:
    """Sample the pool's teacher on every source (the bare base in the general pool), each rank its share."""
    digest = (None if pool == GENERAL else bank.digest(pool)) or "base"
    sampler, accelerator = preparation.sampler, preparation.accelerator
    work = [(example, sampler.key(example, prompts[example.item], digest)) for example in examples]
    mine = work[accelerator.process_index :: accelerator.num_processes]
    with preparation.stages.stage(f"sampling targets: {pool}", len(mine)) as advance:
        sampler.sample_missing(mine, lambda: None if pool == GENERAL else bank.state(pool), advance, preparation.stop)
    accelerator.wait_for_everyone()
    return [sampler.with_target(example, key) for example, key in work]
