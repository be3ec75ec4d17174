"""Before the loop: teachers made, every encoding and target computed once, encoders dropped from memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.component import BuildContext
from cldistill.data.dataset import Dataset, Example
from cldistill.data.encodings import Encoder
from cldistill.data.items import general_items, pairs_of
from cldistill.data.teachers import TeacherBank
from cldistill.progress.signals import never, raise_if_stopped
from cldistill.progress.stages import Stages
from cldistill.protocols import BaseModel, TeacherSource
from cldistill.records import GENERAL, EffectInfo, Item, Prompts
from cldistill.sampling.targets import TeacherSampler

if TYPE_CHECKING:
    from accelerate import Accelerator

    from cldistill.adapters.slots import AdapterSlots


@dataclass(frozen=True)
class Preparation:
    """The loaded base model with its adapter slots, encoder and caches: made by `cldistill.assemble.load_base`, and used by
    every command that needs the model."""

    base: BaseModel
    slots: AdapterSlots
    encoder: Encoder
    sampler: TeacherSampler
    accelerator: Accelerator
    context: BuildContext
    stages: Stages
    stop: Callable[[], bool] = never
    """Asked between two pieces of work; true ends the preparation with `cldistill.errors.Stopped`, all done work saved."""

    @property
    def cache(self) -> Path:
        """Folder of the content-addressed cache."""
        return self.context.cache


@dataclass(frozen=True)
class Request:
    """Implements `cldistill.protocols.TeacherRequest`."""

    effect: EffectInfo
    preparation: Preparation
    items: Sequence[Item]

    @property
    def base(self) -> BaseModel:
        """The loaded base model."""
        return self.preparation.base

    @property
    def cache(self) -> Path:
        """Folder of the content-addressed cache."""
        return self.preparation.cache

    @property
    def slots(self) -> AdapterSlots:
        """The base's adapter slots."""
        return self.preparation.slots

    @property
    def encoder(self) -> Encoder:
        """The cached encodings."""
        return self.preparation.encoder

    @property
    def device(self) -> str:
        """The device of all tensors."""
        return str(self.preparation.accelerator.device)

    @property
    def stages(self) -> Stages:
        """The display of the preparation."""
        return self.preparation.stages

    @property
    def stop(self) -> Callable[[], bool]:
        """Whether somebody asked for a stop."""
        return self.preparation.stop


def effect_pools(effects: Sequence[EffectInfo]) -> dict[str, list[Item]]:
    """List the pairs of every effect that has some."""
    return {e.name: pairs_of(e) for e in effects if e.pairs is not None}


def item_prompts(item: Item, effect: EffectInfo, prompts: Prompts) -> Prompts:
    """Return an effect's prompts for one of its items: a pair with a prompt of its own has it told to the teacher."""
    return prompts if item.prompt == effect.prompt else replace(prompts, teacher=item.prompt)


def make_bank(
    preparation: Preparation,
    effects: Sequence[EffectInfo],
    sources: Mapping[str, TeacherSource],
    items: Mapping[str, list[Item]],
    trained: Collection[str],
) -> TeacherBank:
    """Return the run's teachers; those that must be ``trained`` first are trained here, each rank its share.

    The others are read when they are first mounted: fifty files of 2 GB do not fit in host memory at once.
    """
    requests = {effect.name: Request(effect, preparation, items.get(effect.name, ())) for effect in effects}
    bank = TeacherBank({name: partial(sources[name].adapter, request) for name, request in requests.items()})
    for name in list(trained)[preparation.accelerator.process_index :: preparation.accelerator.num_processes]:
        bank.state(name)
    preparation.accelerator.wait_for_everyone()
    return bank


def prepare(
    preparation: Preparation, pools: Mapping[str, Sequence[tuple[Item, Prompts]]], bank: TeacherBank,
    targets: str | None, target_pools: Sequence[str], later: Sequence[tuple[Item, Prompts]] = (),
) -> Dataset:  # fmt: skip
    """Encode all pools, add the targets (``teacher``, ``pair`` or None) that the losses need, and drop the encoders.

    ``later`` is what grids, report and export will show: it is encoded with the rest, so that no encoder comes back to a
    device that training has filled.
    """
    encode(preparation, pools, later, pair_targets=targets == "pair")
    examples = {
        name: [preparation.encoder.example(item, prompts) for item, prompts in rows] for name, rows in pools.items()
    }
    preparation.base.drop_encoders()
    for name in target_pools:
        if targets == "pair" and name != GENERAL:
            examples[name] = [_with_pair(preparation.encoder, example) for example in examples[name]]
        else:
            examples[name] = _with_samples(preparation, examples[name], dict(pools[name]), name, bank)
    return Dataset(preparation.base, examples)


def encode(
    preparation: Preparation, pools: Mapping[str, Sequence[tuple[Item, Prompts]]], later: Sequence[tuple[Item, Prompts]] = (),
    *, pair_targets: bool,
) -> None:  # fmt: skip
    """Compute what the cache lacks, each rank its share."""
    trained = [row for name in sorted(pools) for row in pools[name]]
    rows = [*trained, *later]
    encoder, rank, world = (
        preparation.encoder,
        preparation.accelerator.process_index,
        preparation.accelerator.num_processes,
    )
    with preparation.stages.stage("encoding pictures and prompts", len(rows)) as advance:
        for index, (item, prompts) in enumerate(rows):
            raise_if_stopped(preparation.stop, "encoding pictures and prompts")
            if index % world == rank:
                encoder.encode(item, prompts)
                if pair_targets and item.target is not None and index < len(trained):
                    encoder.pair_target(item)
            advance(1)
    preparation.accelerator.wait_for_everyone()


def _with_pair(encoder: Encoder, example: Example) -> Example:
    return replace(example, target=lambda: encoder.pair_target(example.item))


def _with_samples(
    preparation: Preparation, examples: Sequence[Example], prompts: Mapping[Item, Prompts], pool: str, bank: TeacherBank
) -> list[Example]:
    """Sample the pool's teacher on every source (the bare base in the general pool), each rank its share."""
    state = None if pool == GENERAL else bank.state(pool)
    digest = "base" if state is None else state.digest
    sampler = preparation.sampler
    work = [(example, sampler.key(example, prompts[example.item], digest)) for example in examples]
    mine = work[preparation.accelerator.process_index :: preparation.accelerator.num_processes]
    with preparation.stages.stage(f"sampling targets: {pool}", len(mine)) as advance:
        sampler.sample_missing(mine, state, advance, preparation.stop)
    preparation.accelerator.wait_for_everyone()
    return [sampler.with_target(example, key) for example, key in work]


def general_pool(images: Path, instructions: Path, isolate: Callable[[str], Prompts]) -> list[tuple[Item, Prompts]]:
    """List the general stream with its prompts."""
    return [(item, isolate(item.prompt)) for item in general_items(images, instructions)]
