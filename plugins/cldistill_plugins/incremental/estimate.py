"""The time of a growth, from what the collection's own run took: its steps, and the stages in its ``run.log`` (torch-free).

A stage that was done before is quick the second time; of several times in a log the longest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cldistill.manifest.checked import CheckedManifest
from cldistill.manifest.models import Evaluate
from cldistill.records import GENERAL
from cldistill.training.metrics_log import FILE
from cldistill_plugins.incremental.growing_manifest import Growth
from cldistill_plugins.planning.api import backward_cost, cycles, guidance_calls, recent_steps

LOG = "run.log"
STAGE = re.compile(r"✓ (.+?)  (?:([\d,]+)   )?([\d.]+ s|[\d:]+)$", re.MULTILINE)
"""A finished stage: its name, its parts where it has several, and its time."""
STARTING = 8.0
"""Seconds of one core until torch and its libraries are loaded, and the hashes compared; no log has them."""
STEPPING = 0.03
"""Seconds of one core that a training step takes besides its passes: Python, the optimiser, the average."""
LOADING = ("loading the base model", "reading the backbone")
TARGETS, MEASURING = "sampling targets: ", "measuring "


@dataclass(frozen=True)
class StageTime:
    """One stage of an earlier run."""

    parts: int
    seconds: float


@dataclass(frozen=True)
class Pace:
    """The speed of an earlier run on this machine, read by `read_pace`."""

    call: float
    """Seconds of one forward pass of one item."""
    stages: Mapping[str, StageTime]

    def seconds(self, *names: str) -> float:
        """Return what stages took together."""
        return sum(self.stages[name].seconds for name in names if name in self.stages)

    def each(self, name: str, otherwise: float = 0.0) -> float:
        """Return what one part of a stage took."""
        found = self.stages.get(name)
        return found.seconds / found.parts if found is not None else otherwise

    def each_of(self, prefix: str) -> float | None:
        """Return what one part took in the slowest stage whose name begins so; None where the log has no such stage."""
        found = [stage.seconds / stage.parts for name, stage in self.stages.items() if name.startswith(prefix)]
        return max(found, default=None)

    @property
    def has_measured(self) -> bool:
        """Whether the log tells how long measuring took; a run that was stopped before has made pictures alone."""
        return self.each_of(MEASURING) is not None


def read_pace(folder: Path, batch: int, backward: float) -> Pace | None:
    """Read the pace of the run in ``folder``, None without its log; ``backward``: a graded call's pass back, in forward passes.

    Each update of a slot has one graded call.
    """
    records = recent_steps(folder / FILE)
    if not records:
        return None
    call = median(r["seconds"] / (batch * (r["forwards"] + backward * len(r.get("updates", ())))) for r in records)
    log = folder / LOG
    return Pace(call, read_stages(log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""))


def read_stages(log: str) -> dict[str, StageTime]:
    """Read the finished stages of a log, each in its longest time."""
    found: dict[str, StageTime] = {}
    for name, parts, time in STAGE.findall(log):
        seconds = 0.0
        for number in time.removesuffix(" s").split(":"):
            seconds = 60 * seconds + float(number)
        if name not in found or seconds > found[name].seconds:
            found[name] = StageTime(int((parts or "1").replace(",", "")), seconds)
    return found


def parts_of(
    checked: CheckedManifest, growth: Growth, pace: Pace, chances: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    """Yield the stages of a growing run, each with its seconds; ``chances``: how often a stream is drawn."""
    manifest, call = checked.manifest, pace.call
    batch, backward = manifest.train.batch_size, backward_cost(checked)
    new = [effect.name for effect in growth.new]
    items = sum(len(checked.items[name]) for name in new)
    yield "preparation", STARTING + pace.seconds(*LOADING) + items * pace.each("encoding pictures and prompts")
    for name in new:
        part = checked.teachers[name]
        if part is not None and part.needs.rank is not None:
            options = part.settings.model_dump()
            yield f"teacher of {name}", options.get("steps", 0) * _teacher_step(checked, growth, pace, options)
    yield "targets", target_calls(checked, growth) * call
    training = sum(
        (cycle.until_step - cycle.from_step)
        * chances.get(cycle.stream, 1.0)
        * batch
        * (cycle.forwards + backward * cycle.graded)
        for cycle in cycles(checked)
    )
    grids = manifest.train.generator_steps // manifest.samples.every if manifest.samples is not None else 0
    shown = grids * len(checked.effects) * growth.collection.index.schedule.steps
    yield "training", (training + shown) * call + pace.seconds("exporting the collection")
    if manifest.evaluate is not None:
        yield "evaluation", evaluation_seconds(checked, growth, manifest.evaluate, pace)


def _teacher_step(checked: CheckedManifest, growth: Growth, pace: Pace, options: Mapping[str, int]) -> float:
    """Return the seconds of one step of a teacher's training, from passes of one item where that is its batch.

    A pass of one item takes longer than an item's share of a batch; the stages that sampled targets tell how long.
    """
    batch, alone = options.get("batch_size", 1), pace.each_of(TARGETS)
    call = pace.call
    if batch == 1 and alone is not None and (targets := growth.known.get("targets")):
        call = max(call, alone / (targets["steps"] * guidance_calls(checked)))
    return STEPPING + batch * (1 + backward_cost(checked)) * call


def target_calls(checked: CheckedManifest, growth: Growth) -> int:
    """Count the calls that sample targets: old effects by few steps, the general pool and new ones that want some by many.

    Guidance is counted twice; the general pool not at all after the collection's run, which left its targets in the cache.
    """
    targets, needing = checked.manifest.targets, [loss for loss in checked.losses if loss.loss.needs.targets]
    if targets is None or not needing:
        return 0
    old, pools = growth.collection.index, checked.targeted_pools
    few = sum(len(checked.items[effect.name]) for effect in old.effects if effect.name in pools)
    many = sum(len(checked.items[effect.name]) for effect in growth.new if effect.name not in checked.paired)
    if GENERAL in pools and (growth.checkpoint is None or growth.given):
        many += len(checked.items.get(GENERAL, ()))
    return old.schedule.steps * few + targets.steps * guidance_calls(checked) * many


def evaluation_seconds(checked: CheckedManifest, growth: Growth, evaluate: Evaluate, pace: Pace) -> float:
    """Return the time of comparing collection, grown collection and new teachers, by what the collection's own report took."""
    few, old, new = growth.collection.index.schedule.steps, len(growth.collection.index.effects), len(growth.new)
    own, general = evaluate.teacher_steps * guidance_calls(checked), _general_pictures(evaluate)
    pictures = evaluate.pictures * (old + (old + new) + new) + 2 * general
    calls = few * (evaluate.pictures * (2 * old + new) + 2 * general) + own * evaluate.pictures * new
    # Its run showed the teachers at their own steps and at the student's, which may be as many.
    ways = {own, few * guidance_calls(checked)}
    known = evaluate.pictures * old * (len(ways) + 1) + 2 * general
    known_calls = evaluate.pictures * old * (sum(ways) + few) + 2 * general * few
    edited = pace.stages.get("editing the held-out pictures")
    whole = edited is not None and edited.parts >= known  # else some of them were in the cache
    each = edited.seconds / known_calls if edited is not None and whole else pace.call
    measuring = sum(time.seconds for name, time in pace.stages.items() if name.startswith((MEASURING, "true outputs")))
    encoded = evaluate.pictures * new * pace.each("encoding pictures and prompts")
    rest = pace.seconds(*LOADING, "writing the report")
    return calls * each + encoded + rest + measuring * pictures / max(known, 1)


def _general_pictures(evaluate: Evaluate) -> int:
    if evaluate.general is None or not evaluate.general.is_file():
        return 0
    lines = sum(bool(line.strip()) for line in evaluate.general.read_bytes().splitlines())
    return min(lines, evaluate.general_pictures or lines)
