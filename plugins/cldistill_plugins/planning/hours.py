"""The hours of a run: measured, where it has a log, else calculated from its backbone calls and the device's speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cldistill.manifest.checked import CheckedManifest
from cldistill.training.metrics_log import FILE, read_metrics
from cldistill_plugins.planning.calls import Cycle, backward_cost, cycles
from cldistill_plugins.planning.fit import Device

UTILISATION = 0.4
"""Share of a card's dense bf16 speed that large transformers reach in training."""
CPU_TFLOPS = 0.109
"""Speed of two cores in the quickstart: the operations of its 1,582 steps in its 338 seconds of training."""
LAST = 50
"""Steps at the end of a log whose pace counts."""


@dataclass(frozen=True)
class Part:
    """A stage of the run, in calls of the backbone with one item each."""

    name: str
    calls: float


@dataclass(frozen=True)
class Hours:
    """The time of a run and where the figure comes from."""

    seconds: float | None
    """None where the device's speed is not known."""
    source: str
    parts: Sequence[tuple[str, float]] = ()
    """Stage -> its seconds."""
    unknown: Sequence[str] = ()
    """Stages whose size nobody knows before the data are there."""

    def __str__(self) -> str:
        if self.seconds is None:
            return f"not known: {self.source}"
        stages = ", ".join(f"{name} {told(seconds)}" for name, seconds in self.parts)
        without = f"; without {' and '.join(self.unknown)}, which the pairs decide" if self.unknown else ""
        return f"about {told(self.seconds)} ({self.source}): {stages}{without}"


def told(seconds: float) -> str:
    """Return a time in words that fit its size: ``40 s``, ``12 min``, ``3.5 hours``, ``12 days``."""
    for unit, factor in (("days", 172_800.0), ("hours", 7_200.0), ("min", 120.0)):
        if seconds >= factor:
            amount = seconds / {"days": 86_400, "hours": 3_600, "min": 60}[unit]
            return f"{amount:.1f} {unit}" if amount < 10 and unit != "min" else f"{amount:.0f} {unit}"
    return f"{seconds:.0f} s"


def hours(checked: CheckedManifest, device: Device | None) -> Hours:
    """Return the time of a run on a device; measured where ``runs/NAME`` has the log of an earlier one."""
    log = Path("runs") / checked.manifest.name / FILE
    if device is not None and (pace := measured_pace(log)) is not None:
        total = sum(cycle_mean(checked, lambda cycle: cycle.forwards))
        return Hours(total * pace, f"measured: {pace:.3g} s a call in {log}", [("training", total * pace)])
    parts, unknown = list(stages(checked)), list(unknown_stages(checked))
    if device is None or (device.gpu and device.tflops is None):
        calls = sum(part.calls for part in parts)
        return Hours(None, f"{calls:,.0f} forward passes of the base, and no speed of the device; name one by --device")
    if device.gpu:
        assert device.tflops is not None
        rate, source = device.tflops * UTILISATION, f"at {UTILISATION:.0%} of {device.tflops:g} TFLOP/s"
    else:
        rate, source = CPU_TFLOPS, f"at {1000 * CPU_TFLOPS:g} GFLOP/s, the quickstart's on two cores"
    found = [(part.name, part.calls * operations(checked) / (rate * 1e12)) for part in parts]
    return Hours(sum(seconds for _, seconds in found), f"calculated, {source}, one device", found, unknown)


def measured_pace(log: Path) -> float | None:
    """Return the seconds of a backbone call in the last steps of a run's log, or None without one."""
    records = recent_steps(log)
    return median(record["seconds"] / record["forwards"] for record in records) if records else None


def recent_steps(log: Path) -> list[dict[str, Any]]:
    """Return the last steps of a run's log that tell their ``seconds`` and ``forwards``; none without a log."""
    found = read_metrics(log)[-LAST:] if log.is_file() else []
    return [record for record in found if record.get("seconds") and record.get("forwards")]


def operations(checked: CheckedManifest) -> float:
    """Return the operations of one forward pass of one item: weights met by each token, and attention among all.

    A transformer's token meets ``12 D^2`` weights a block, whichever stream it belongs to.
    """
    base = checked.description
    tokens = 2 * base.latent_tokens + base.encoded_tokens
    return 2 * tokens * 12 * base.hidden**2 * base.layers + 4 * tokens**2 * base.hidden * base.layers


def stages(checked: CheckedManifest) -> Iterator[Part]:
    """Yield what calls the backbone: teachers in training, targets, the loop."""
    backward = backward_cost(checked)
    taught = 0.0
    for name in checked.trained_teachers:
        part = checked.teachers[name]
        if part is not None and name not in checked.needless_teachers:
            settings = part.settings.model_dump()
            taught += settings.get("steps", 0) * settings.get("batch_size", 1) * (1 + backward)
    if taught:
        yield Part("teachers", taught)
    if sampled := _sampled(checked):
        yield Part("targets", sampled)
    batch = checked.manifest.train.batch_size
    yield Part("training", batch * sum(cycle_mean(checked, lambda c: c.forwards + backward * c.graded)))
    evaluate = checked.manifest.evaluate
    if evaluate is not None:  # its own LoRAs at many steps and at the student's, and the student
        few = 2 * checked.manifest.sampler.steps
        each = guidance_calls(checked) * (evaluate.teacher_steps + few / 2) + few / 2
        yield Part("evaluation", evaluate.pictures * len(checked.effects) * each)


def unknown_stages(checked: CheckedManifest) -> Iterator[str]:
    """Yield the stages whose size the missing pairs decide."""
    targets = checked.manifest.targets
    sampled = {effect.name for effect in checked.effects} - checked.paired
    if targets is not None and not sampled <= set(checked.items):
        yield "the targets of effects without pairs" if checked.items else "the targets"


def _sampled(checked: CheckedManifest) -> float:
    """Count the calls that sample targets, guidance counted twice; general items have no other, also beside ``from: pair``."""
    targets = checked.manifest.targets
    if targets is None:
        return 0.0
    pools = [pool for pool in checked.targeted_pools if pool not in checked.paired]
    return float(sum(len(checked.items.get(pool, ())) for pool in pools) * targets.steps * guidance_calls(checked))


def guidance_calls(checked: CheckedManifest) -> int:
    """Return the calls that one step of a teacher's sampling takes: two where it is guided."""
    return 1 if checked.base.settings.model_dump().get("target_guidance_scale", 1.0) == 1.0 else 2


def cycle_mean(checked: CheckedManifest, cost: Callable[[Cycle], float]) -> Iterator[float]:
    """Yield the cost of each phase of the run: its steps times the mean over the streams that it may draw."""
    phases: dict[tuple[int, int], list[float]] = {}
    for cycle in cycles(checked):
        phases.setdefault((cycle.from_step, cycle.until_step), []).append(cost(cycle))
    for (start, stop), costs in phases.items():
        yield (stop - start) * sum(costs) / len(costs)
