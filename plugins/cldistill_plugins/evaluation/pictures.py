"""The pictures of an evaluation: what each system makes of each pool, as far as it was not made before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cldistill.data.encodings import Encoder
from cldistill.progress.stages import Stages
from cldistill.records import Item
from cldistill.sampling.image_generator import ImageGenerator, Row, SamplingConfig, batches
from cldistill_plugins.evaluation.picture_store import Pictures, PictureStore
from cldistill_plugins.sharding.api import Shard

Outputs = Mapping[str, Mapping[str, Pictures]]
"""System -> pool -> its pictures."""


@dataclass(frozen=True)
class Job:
    """One system on one pool."""

    system: str
    pool: str
    rows: Sequence[Row]
    config: Callable[[], SamplingConfig]
    """Called when it is the job's turn: adapters of all jobs at once may not fit in memory."""


def make_pictures(generator: ImageGenerator, jobs: Sequence[Job], store: PictureStore, stages: Stages) -> Outputs:
    """Make every picture that the store lacks, after encoding what the cache lacks.

    Raises:
        Stopped: where ``stages`` can be stopped; what is made is kept.
    """
    encode(generator.encoder, [row for job in jobs for row in job.rows], stages)
    made: dict[str, dict[str, Pictures]] = {}
    with stages.stage("editing the held-out pictures", sum(len(job.rows) for job in jobs)) as advance:
        for job in jobs:
            made.setdefault(job.system, {})[job.pool] = _one(generator, job, store, advance)
    return made


def share_of(jobs: Sequence[Job], shard: Shard, encoder: Encoder, stages: Stages) -> list[Job]:
    """Return a share of every system's pictures: whole batches, since in other company a picture's last bits differ.

    A share's batches are neighbours, so that it mounts few teachers; the sources of all pictures are encoded for that.
    """
    split: dict[str, list[Job]] = {}
    with stages.stage("sharing out the held-out pictures", len(jobs)) as advance:
        for job in jobs:
            found = batches([encoder.example(item, prompts) for item, prompts in job.rows])
            split.setdefault(job.system, []).extend(replace(job, rows=[job.rows[i] for i in batch]) for batch in found)
            advance(1)
    return [job for own in split.values() for job in shard.block(own)]


def _one(generator: ImageGenerator, job: Job, store: PictureStore, advance: Callable[[int], None]) -> Pictures:
    config = job.config()
    keys = [generator.key(config, item, prompts) for item, prompts in job.rows]
    missing = {index for index, key in enumerate(keys) if not store.has(key)}
    if len(missing) < len(keys):
        advance(len(keys) - len(missing))
    for batch in generator.pictures(config, job.rows, missing) if missing else ():
        made = {place: picture for place, picture in batch if place in missing}
        for place, picture in made.items():
            store.write(keys[place], picture)
        advance(len(made))
    return Pictures([store.path(key) for key in keys])


def encode(encoder: Encoder, rows: Sequence[Row], stages: Stages) -> None:
    """Encode what the cache lacks, each source and prompt once, and give the encoders' memory back."""
    distinct = list({(item.sources, prompts): (_plain(item), prompts) for item, prompts in rows}.values())
    before = encoder.cache.computed
    with stages.stage("encoding pictures and prompts", len(distinct)) as advance:
        for item, prompts in distinct:
            encoder.encode(item, prompts)
            advance(1)
    if encoder.cache.computed > before:
        encoder.base.drop_encoders()


def _plain(item: Item) -> Item:
    return replace(item, target=None)
