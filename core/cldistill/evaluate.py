"""After training: every system edits the held-out pictures, every metric looks, and a report says what came out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from cldistill.cache import content_key
from cldistill.data import list_pictures
from cldistill.encodings import Encoder
from cldistill.held_out import general_rows, held_out_rows
from cldistill.progress import Stages
from cldistill.protocols import BaseModel, Metric
from cldistill.records import FLOOR, GENERAL, EffectInfo, Item, MetricValues, Prompts
from cldistill.run import Run
from cldistill.systems import Studio, System, systems_of
from cldistill.targets import SAMPLE_BATCH
from cldistill.update import TEACHER
from cldistill.value_store import ValueStore

if TYPE_CHECKING:
    from PIL.Image import Image


T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationPlan:
    """What is measured."""

    images: Path
    pictures: int
    teacher_steps: int
    metrics: Mapping[str, Metric]
    general_images: Path | None = None
    general: Path | None = None


@dataclass(frozen=True)
class Request:
    """Implements `cldistill.protocols.MetricRequest`."""

    effects: Sequence[EffectInfo]
    prompts: Mapping[str, Prompts]
    items: Mapping[str, Sequence[Item]]
    outputs: Mapping[str, Mapping[str, Sequence[Image]]]
    cache: Path
    metric: str
    """Name and version of the metric: the beginning of what it remembers things by."""
    base: BaseModel = field(repr=False)
    seen: dict[bytes, Image] = field(repr=False)
    advance: Callable[[float], None] = lambda share: None
    reference: str | None = "base"

    @property
    def digests(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Hashes of the pictures."""
        return {
            system: {pool: [picture_digest(picture) for picture in made] for pool, made in pools.items()}
            for system, pools in self.outputs.items()
        }

    @property
    def base_digest(self) -> str:
        """Hash of the base's weights and geometry."""
        return self.base.fingerprint

    def remember(self, key: Sequence[str | int | float], make: Callable[[], Any]) -> Any:
        """Return ``make()``, or what it returned for that key earlier."""
        return ValueStore(self.cache / "values.sqlite").get(content_key("remembered", self.metric, *key), make)

    def reconstruct(self, pictures: Sequence[Image]) -> list[Image]:
        """Pass pictures through the base's VAE; several metrics ask for the same ones, so the results are kept."""
        names = [hashlib.sha256(repr(p.size).encode() + p.tobytes()).digest() for p in pictures]
        missing = {name: p for name, p in zip(names, pictures, strict=True) if name not in self.seen}
        for chunk in batched(missing.items(), SAMPLE_BATCH):
            made = self._through_vae([picture for _, picture in chunk])
            self.seen.update(zip((name for name, _ in chunk), made, strict=True))
        return [self.seen[name] for name in names]

    @torch.no_grad()
    def _through_vae(self, pictures: Sequence[Image]) -> list[Image]:
        if len({picture.size for picture in pictures}) > 1:
            return [made for picture in pictures for made in self._through_vae([picture])]
        source = self.base.collate([self.base.encode_source([picture]) for picture in pictures])
        latents = torch.stack([self.base.encode_target(picture, [picture]) for picture in pictures])
        return self.base.decode(latents, source)


def picture_digest(picture: Image) -> str:
    """Hash a picture's size and pixels."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


def batched(entries: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` entries."""
    rest = iter(entries)
    while chunk := list(islice(rest, size)):
        yield chunk


@dataclass(frozen=True)
class Evaluation:
    """What was found: the report's figures, and every value behind them."""

    systems: dict[str, Any]
    """``{system: {evaluations, effects: {effect: {metric: value}}, general: ..., mean: ...}}``."""
    per_picture: dict[str, Any]
    """``{pictures: {pool: [key]}, values: {system: {pool: {metric: [value]}}}}``: what intervals are computed from."""


def evaluate(run: Run, encoder: Encoder, plan: EvaluationPlan, cache: Path, stages: Stages) -> Evaluation:
    """Let every system edit the held-out pictures, and every metric measure what came out."""
    rows = evaluation_rows(run, plan)
    systems = systems_of(run, plan.teacher_steps)
    made = edit_all(run, encoder, systems, rows, stages)
    items = {pool: [item for item, _ in entries] for pool, entries in rows.items()}
    found: dict[str, dict[str, list[MetricValues]]] = {
        name: {pool: [] for pool in pools} for name, pools in made.items()
    }
    seen: dict[bytes, Image] = {}
    for name, metric in plan.metrics.items():
        with stages.stage(f"measuring {name}", 100) as advance:
            done = Percent(advance)
            request = Request(run.effects, run.prompts, items, made, cache, name, run.base, seen, done)
            answer = metric(request)
            for system, pools in ((s, p) for s, p in answer.items() if s != FLOOR):
                for pool, values in pools.items():
                    found[system][pool].append(values)
            done(1.0)
    return Evaluation(
        {system.name: summarise(system, found[system.name]) for system in systems},
        {"pictures": {pool: [item.key for item in own] for pool, own in items.items()}, "values": values_of(found)},
    )


def values_of(found: Mapping[str, Mapping[str, Sequence[MetricValues]]]) -> dict[str, Any]:
    """Return ``{system: {pool: {metric: [value a picture]}}}``."""
    return {
        system: {
            pool: {k: list(v) for result in results for k, v in result.per_picture.items()}
            for pool, results in p.items()
        }
        for system, p in found.items()
    }


class Percent:
    """Turns shares of the work into steps of a progress bar of 100."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._shown = 0

    def __call__(self, share: float) -> None:
        """Show that ``share`` (0 to 1) is done."""
        percent = int(share * 100)
        self._advance(percent - self._shown)
        self._shown = percent


def evaluation_rows(run: Run, plan: EvaluationPlan) -> dict[str, list[tuple[Item, Prompts]]]:
    """List what is edited: held-out pictures under every effect, and held-out general instructions."""
    pictures = list_pictures(plan.images)[: plan.pictures]
    rows = {e.name: held_out_rows(pictures, e, run.prompts[e.name]) for e in run.effects}
    if plan.general is not None and plan.general_images is not None:
        rows[GENERAL] = general_rows(plan.general_images, plan.general)
    return rows


def edit_all(
    run: Run,
    encoder: Encoder,
    systems: Sequence[System],
    rows: Mapping[str, Sequence[tuple[Item, Prompts]]],
    stages: Stages,
) -> dict[str, dict[str, Sequence[Image]]]:
    """Let every system edit every pool that it is for: the base general ones, teachers their effects, the student all."""
    studio = Studio(run, encoder)
    work = [(s, pool) for s in systems for pool in rows if pool in pools_of(s, rows)]
    made: dict[str, dict[str, Sequence[Image]]] = {system.name: {} for system in systems}
    with stages.stage("editing the held-out pictures", sum(len(rows[pool]) for _, pool in work)) as advance:
        for system, pool in work:
            made[system.name][pool] = studio.pictures(system, rows[pool], advance)
    return made


def pools_of(system: System, rows: Mapping[str, object]) -> set[str]:
    """Return the pools that a system is measured on."""
    if system.slot is None:
        return {GENERAL} & set(rows)
    return set(rows) - {GENERAL} if system.slot == TEACHER else set(rows)


def summarise(system: System, pools: Mapping[str, Sequence[MetricValues]]) -> dict[str, Any]:
    """Merge what the metrics found for one system into its entry of the report."""
    values = {pool: merge_values(results) for pool, results in pools.items()}
    effects = {pool: found for pool, found in values.items() if pool != GENERAL}
    entry: dict[str, Any] = {"evaluations": system.evaluations, "effects": effects}
    if GENERAL in values:
        entry[GENERAL] = values[GENERAL]
    entry["mean"] = {**mean_over(effects), **values.get(GENERAL, {})}
    return entry


def merge_values(results: Sequence[MetricValues]) -> dict[str, float]:
    """Average each metric over pictures; a figure of the whole set wins over the mean of its name."""
    merged: dict[str, float] = {}
    for result in results:
        for name, values in result.per_picture.items():
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                merged[name] = fmean(finite)
        merged.update(result.summary)
    return merged


def mean_over(effects: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average each metric over the effects that have it."""
    names = sorted({name for values in effects.values() for name in values})
    return {name: fmean(values[name] for values in effects.values() if name in values) for name in names}
