"""Train a single-effect LoRA on before/after pairs by flow matching: how a teacher comes to be.

``L = || v(x_sigma, sigma, c) - (noise - x0) ||^2`` with the effect's own prompt (arXiv 2605.25378 section 4.1 trains its
single-effect teachers this way: 2,000 steps at 1e-4).  The result is cached under a hash of pairs, prompt, base and settings;
a killed training goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import ImageOps
from torch import Tensor
from torch.nn.functional import mse_loss

from cldistill import checkpoint
from cldistill.adapter_files import AdapterState, load_adapter
from cldistill.adapter_save import save_adapter
from cldistill.cache import content_key
from cldistill.data import open_picture
from cldistill.dataset import Dataset, Example
from cldistill.encodings import Encoder
from cldistill.optim import SlotOptimizer, learning_rate
from cldistill.random import KeyedRandom
from cldistill.records import Item, Route
from cldistill.run import LrPhase, SlotConfig
from cldistill.schedule import add_noise, shift_sigma, velocity

if TYPE_CHECKING:
    from cldistill.adapters import AdapterSlots
    from cldistill.protocols import BaseModel

SLOT = "apprentice"


@dataclass(frozen=True)
class PairsSettings:
    """How a single-effect LoRA is trained."""

    steps: int = 2000
    rank: int = 16
    alpha: float = 16.0
    lr: float = 1e-4
    end_lr: float | None = None
    warmup: int = 0
    batch_size: int = 1
    shift: float = 3.0
    ema: float | None = None
    grad_clip: float = 1.0
    flip: bool = False
    """Also train on the mirrored pairs: right for effects that know no left and right."""
    seed: int = 0
    checkpoint_every: int = 250


@dataclass(frozen=True)
class PairsJob:
    """One teacher to be trained: its pairs, the base, and where its files go."""

    base: BaseModel
    slots: AdapterSlots
    encoder: Encoder
    items: Sequence[Item]
    prompt: str
    settings: PairsSettings
    folder: Path
    """Folder in the cache; the job has a subfolder named by its content."""
    device: str = "cpu"

    @property
    def key(self) -> str:
        """Hash of everything that the trained weights depend on."""
        settings = {k: v for k, v in asdict(self.settings).items() if k != "checkpoint_every"}
        digests = [self.encoder.pair_digest(item) for item in self.items]
        return content_key("pairs", self.base.fingerprint, self.prompt, repr(sorted(settings.items())), *digests)

    @property
    def file(self) -> Path:
        """The finished LoRA."""
        return self.folder / self.key / "teacher.safetensors"


def train_pairs(job: PairsJob, advance: Callable[[int], None] = lambda done: None) -> AdapterState:
    """Return the job's adapter: from the cache, or trained now (resuming where an earlier try stopped)."""
    shapes = {name: module_shape(job.base, name) for name in job.base.adapter_targets}
    if not job.file.is_file():
        weights = _train(job, advance)
        save_adapter(job.file, job.base, weights, job.settings.rank, job.settings.alpha)
    return load_adapter(job.file, shapes)


def module_shape(base: BaseModel, name: str) -> tuple[int, int]:
    """Return ``(out_features, in_features)`` of a module of the backbone, adapted already or not."""
    module = base.backbone.get_submodule(name)
    return int(module.out_features), int(module.in_features)  # type: ignore[arg-type]


def _train(job: PairsJob, advance: Callable[[int], None]) -> dict[str, Tensor]:
    settings = job.settings
    config = SlotConfig(
        SLOT, settings.rank, settings.alpha, (LrPhase(0, settings.lr, settings.end_lr, settings.warmup),),
        ema=settings.ema, targets=job.base.adapter_targets,
    )  # fmt: skip
    random = KeyedRandom(settings.seed, device=job.device).child("pairs")
    job.slots.add(SLOT, config.targets, config.rank, config.alpha, random.generator("init"))
    try:
        optimizer = SlotOptimizer(config, job.slots.parameters(SLOT))
        dataset = Dataset(job.base, {job.items[0].pool: [_example(job, item) for item in training_items(job)]})
        step = _resume(job, optimizer)
        advance(step)
        while step < settings.steps:
            _step(job, optimizer, dataset, random.child(step), step)
            step += 1
            advance(1)
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                _save(job, optimizer, step)
        final = optimizer.average if optimizer.average is not None else job.slots.state(SLOT)
        return {name: value.detach().cpu().clone() for name, value in final.items()}
    finally:
        job.slots.remove(SLOT)


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
            ImageOps.mirror(open_picture(path)).save(copy)
        return copy

    assert item.target is not None
    sources = tuple(mirror(path) for path in item.sources)
    return replace(item, key=f"{item.key}/mirrored", sources=sources, target=mirror(item.target))


def _step(job: PairsJob, optimizer: SlotOptimizer, dataset: Dataset, random: KeyedRandom, step: int) -> None:
    batch = dataset.draw(Route("pairs", {job.items[0].pool: 1.0}), random, job.settings.batch_size)
    x0 = batch.target
    assert x0 is not None
    uniform = torch.rand(x0.shape[0], generator=random.generator("sigma")).to(x0.device)
    sigma = shift_sigma(uniform, job.settings.shift)
    noise = random.normal(x0.shape, "noise")
    with job.slots.scope(SLOT):
        told = batch.teacher
        predicted = job.base.predict(add_noise(x0, noise, sigma), sigma, told.source, told.prompt)
        mse_loss(predicted.float(), velocity(x0, noise)).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(list(optimizer.parameters.values()), job.settings.grad_clip)
    optimizer.apply(learning_rate(optimizer.config.lr, step, job.settings.steps))
    optimizer.zero_grad()


def _example(job: PairsJob, item: Item) -> Example:
    encoder, base = job.encoder, job.base
    # A single-effect LoRA hears nothing but its own prompt.
    return Example(
        item=item,
        shape=base.latent_shape(encoder.source(item)),
        source=lambda: encoder.source(item),
        student=lambda: encoder.prompt(item, job.prompt),
        teacher=lambda: encoder.prompt(item, job.prompt),
        unconditional=lambda: encoder.prompt(item, job.prompt),
        target=lambda: encoder.pair_target(item),
    )


def _save(job: PairsJob, optimizer: SlotOptimizer, step: int) -> None:
    groups: dict[str, Mapping[str, Tensor]] = {"weights": job.slots.state(SLOT), "optimizer": optimizer.state()}
    if optimizer.average is not None:
        groups["ema"] = optimizer.average
    checkpoint.save(job.file.parent / "checkpoints", step, groups, {"key": job.key}, keep=1)


def _resume(job: PairsJob, optimizer: SlotOptimizer) -> int:
    found = checkpoint.latest(job.file.parent / "checkpoints", warn=lambda text: None)
    if found is None:
        return 0
    job.slots.load(SLOT, found.load("weights"))
    optimizer.load(found.load("optimizer"))
    if optimizer.average is not None:
        optimizer.average = {name: value.to(job.device) for name, value in found.load("ema").items()}
    return int(found.step)
