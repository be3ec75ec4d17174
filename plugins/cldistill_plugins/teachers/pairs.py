"""Train a single-effect LoRA on before/after pairs by flow matching: how a teacher comes to be.

``L = || v(x_sigma, sigma, c) - (noise - x0) ||^2`` with the effect's own prompt (arXiv 2605.25378 section 4.1 trains its
single-effect teachers this way: 2,000 steps at 1e-4).  The result is cached under a hash of pairs, prompt, base and settings;
a killed training goes on from its last checkpoint, and of several processes that share a cache one trains and the others wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout
from PIL import ImageOps
from torch import Tensor
from torch.nn.functional import mse_loss

from cldistill.adapters.files import load_adapter
from cldistill.adapters.save import save_adapter
from cldistill.data.dataset import Dataset, Example
from cldistill.data.encodings import Encoder
from cldistill.data.items import open_picture
from cldistill.errors import NonFiniteError
from cldistill.precision import precision_key
from cldistill.progress.signals import never, raise_if_stopped
from cldistill.random import KeyedRandom
from cldistill.records import Item, Prompts, Route
from cldistill.schedule import add_noise, shift_sigma, velocity
from cldistill.storage.files import atomic_write_bytes, remove
from cldistill.storage.tensors import content_key
from cldistill.training import checkpoint
from cldistill.training.optim import Optimizer, learning_rate
from cldistill.training.run import LrPhase, SlotConfig
from cldistill.weights import AdapterState
from cldistill_plugins.teachers.from_pairs import FromPairsSettings

if TYPE_CHECKING:
    from cldistill.adapters.slots import AdapterSlots
    from cldistill.protocols import BaseModel

SLOT = "teacher-training"
PATIENCE = 0.5
"""Seconds between two looks at a lock that another process has."""
MAX_BAD_STEPS = 10
"""Steps in a row with a non-finite loss or gradient after which the training has diverged."""


@dataclass(frozen=True)
class PairsJob:
    """One teacher to be trained: its pairs, the base, and where its files go."""

    base: BaseModel
    slots: AdapterSlots
    encoder: Encoder
    items: Sequence[Item]
    prompt: str
    """The prompt of items without one of their own."""
    settings: FromPairsSettings
    folder: Path
    """Folder in the cache; the job has a subfolder named by its content."""
    device: str = "cpu"
    stop: Callable[[], bool] = never
    """Asked after every step: true saves a checkpoint and ends the training."""

    @property
    def key(self) -> str:
        """Hash of everything that the trained weights depend on."""
        settings = self.settings.model_dump(exclude={"checkpoint_every"}) | {"alpha": self.settings.scale_alpha}
        digests = [self._digest(item) for item in self.items]
        base = (self.base.fingerprint, *precision_key(self.base), repr(self.base.adapter_targets))
        made = (*base, self.prompt, repr(sorted(settings.items())))
        return content_key("pairs", *made, *digests)

    def _digest(self, item: Item) -> str:
        assert item.target is not None
        return content_key(self.encoder.item_digest(item), self.encoder.file_digest(item.target))

    @property
    def file(self) -> Path:
        """The finished LoRA."""
        return self.folder / self.key / "teacher.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder in which the training saves itself; gone once it is finished."""
        return self.file.parent / "checkpoints"


def train_pairs(job: PairsJob, advance: Callable[[int], None] = lambda done: None) -> AdapterState:
    """Return the job's adapter: from the cache, or trained now (resuming where an earlier try stopped).

    Raises:
        NonFiniteError: the training diverged; nothing of that is kept.
        Stopped: ``job.stop`` said so; a checkpoint is saved.
    """
    shapes = {name: module_shape(job.base, name) for name in job.base.adapter_targets}
    if not job.file.is_file():
        with _alone(job):
            if not job.file.is_file():  # else whoever had the lock has made it
                weights = _train(job, advance)
                _must_be_finite(job, weights)
                save_adapter(job.file, job.base, weights, job.settings.rank, job.settings.scale_alpha)
                remove(job.checkpoints)
    return load_adapter(job.file, shapes)


@contextmanager
def _alone(job: PairsJob) -> Iterator[None]:
    """Wait for whoever trains the same teacher in the same cache, who would have its checkpoints taken from under it."""
    job.file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(job.file.parent / ".lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            what = f"waiting for another process, which trains the teacher of {job.items[0].pool}"
            raise_if_stopped(job.stop, what)
    try:
        yield
    finally:
        lock.release()


def module_shape(base: BaseModel, name: str) -> tuple[int, int]:
    """Return ``(out_features, in_features)`` of a module of the backbone, adapted already or not."""
    module = base.backbone.get_submodule(name)
    return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]


def _train(job: PairsJob, advance: Callable[[int], None]) -> dict[str, Tensor]:
    settings = job.settings
    config = SlotConfig(
        SLOT, settings.rank, settings.scale_alpha, (LrPhase(0, settings.lr, settings.end_lr, settings.warmup),),
        ema=settings.ema, targets=job.base.adapter_targets,
    )  # fmt: skip
    random = KeyedRandom(settings.seed, device=job.device).child("pairs")
    job.slots.add(SLOT, config.targets, config.rank, config.alpha, random.generator("init"))
    try:
        optimizer = Optimizer(config, job.slots.parameters(SLOT))
        dataset = Dataset(job.base, {job.items[0].pool: _examples(job)})
        _loop(job, optimizer, dataset, random, advance)
        final = optimizer.average if optimizer.average is not None else job.slots.state(SLOT)
        return {name: value.detach().cpu().clone() for name, value in final.items()}
    finally:
        job.slots.remove(SLOT)


def _loop(
    job: PairsJob, optimizer: Optimizer, dataset: Dataset, random: KeyedRandom, advance: Callable[[int], None]
) -> None:
    settings, bad_steps = job.settings, 0
    step = _resume(job, optimizer)
    advance(step)
    while step < settings.steps:
        bad_steps = 0 if _step(job, optimizer, dataset, random.child(step), step) else bad_steps + 1
        step += 1
        advance(1)
        if bad_steps >= MAX_BAD_STEPS:
            raise NonFiniteError(_diverged(job, f"{bad_steps} steps in a row had a non-finite loss or gradient"))
        stopping = job.stop()
        if stopping or step % settings.checkpoint_every == 0 or step == settings.steps:
            _save(job, optimizer, step)
        if stopping and step < settings.steps:
            raise_if_stopped(lambda: True, f"training the teacher of {job.items[0].pool}")


def _diverged(job: PairsJob, what: str) -> str:
    return (
        f"the teacher of {job.items[0].pool!r}, trained from its pairs: {what}. Lower `lr` (now {job.settings.lr:g}) or "
        f"`grad_clip` (now {job.settings.grad_clip:g}), or give it a `warmup`, in the options of its `from-pairs`; other "
        "options train it from the beginning"
    )


def _must_be_finite(job: PairsJob, weights: Mapping[str, Tensor]) -> None:
    """Keep what diverged out of the cache, where it would be found for ever."""
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise NonFiniteError(_diverged(job, "its weights are not finite"))


def training_items(job: PairsJob) -> list[Item]:
    """Return the pairs, and with ``flip`` their mirrored copies (kept in the job's folder)."""
    if not job.settings.flip:
        return list(job.items)
    return [*job.items, *(mirrored(item, job.file.parent / "mirrored", job.encoder) for item in job.items)]


def mirrored(item: Item, folder: Path, encoder: Encoder) -> Item:
    """Write the left-right mirrored copy of a pair and return its item."""
    folder.mkdir(parents=True, exist_ok=True)

    def mirror(path: Path) -> Path:
        copy = folder / f"{encoder.file_digest(path)}.png"
        if not copy.is_file():
            data = BytesIO()
            ImageOps.mirror(open_picture(path)).save(data, format="PNG")
            atomic_write_bytes(copy, data.getvalue())
        return copy

    assert item.target is not None
    sources = tuple(mirror(path) for path in item.sources)
    return replace(item, key=f"{item.key}/mirrored", sources=sources, target=mirror(item.target))


def _step(job: PairsJob, optimizer: Optimizer, dataset: Dataset, random: KeyedRandom, step: int) -> bool:
    """Make one update, or leave it out and return False where loss or gradients are not finite."""
    batch = dataset.draw(Route("pairs", {job.items[0].pool: 1.0}), random, job.settings.batch_size)
    x0 = batch.target
    assert x0 is not None
    uniform = torch.rand(x0.shape[0], generator=random.generator("sigma")).to(x0.device)
    sigma = shift_sigma(uniform, job.settings.shift)
    noise = random.normal(x0.shape, "noise")
    with job.slots.scope(SLOT):
        told = batch.teacher
        predicted = job.base.predict(add_noise(x0, noise, sigma), sigma, told.source, told.prompt)
        loss = mse_loss(predicted.float(), velocity(x0, noise))
        loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(list(optimizer.parameters.values()), job.settings.grad_clip)
    good = math.isfinite(float(loss.detach())) and math.isfinite(float(norm))
    if good:
        optimizer.apply(learning_rate(optimizer.phases, step, job.settings.steps))
    optimizer.zero_grad()
    return good


def _examples(job: PairsJob) -> list[Example]:
    """Encode what the cache lacks of all pairs, so that the encoders leave a device on which gradients need their memory."""
    items = training_items(job)
    for item in items:
        raise_if_stopped(job.stop, f"encoding the pairs of {item.pool}")
        job.encoder.encode(item, _prompts(job, item))
        job.encoder.pair_target(item)
    job.base.drop_encoders()
    return [_example(job, item) for item in items]


def _example(job: PairsJob, item: Item) -> Example:
    example = job.encoder.example(item, _prompts(job, item))
    return replace(example, target=lambda: job.encoder.pair_target(item))


def _prompts(job: PairsJob, item: Item) -> Prompts:
    # A single-effect LoRA hears nothing but its own prompt, which a line of a JSONL may say in its own words.
    text = item.prompt or job.prompt
    return Prompts(text, text, text)


def _save(job: PairsJob, optimizer: Optimizer, step: int) -> None:
    weights = job.slots.state(SLOT)
    _must_be_finite(job, weights)
    groups: dict[str, Mapping[str, Tensor]] = {"weights": weights, "optimizer": optimizer.state()}
    if optimizer.average is not None:
        groups["ema"] = optimizer.average
    checkpoint.save(job.checkpoints, step, groups, {"key": job.key}, keep=1)


def _resume(job: PairsJob, optimizer: Optimizer) -> int:
    found = checkpoint.latest(job.checkpoints, warn=lambda text: None)
    if found is None:
        return 0
    job.slots.load(SLOT, found.load("weights"))
    optimizer.load(found.load("optimizer"))
    if optimizer.average is not None:
        optimizer.average = {name: value.to(job.device) for name, value in found.load("ema").items()}
    return int(found.step)
