"""The backbone calls of a run, counted before anything is loaded: exact in expectation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cldistill.manifest.checked import CheckedLoss, CheckedManifest
from cldistill.records import STUDENT

CHECKPOINT_COST = 3
"""A graded call in units of a plain one: forward, recomputed forward, and a backward counted as one."""


@dataclass(frozen=True)
class Cycle:
    """One generator step with its critic updates, all on one stream, in a phase of the run."""

    stream: str
    from_step: int
    until_step: int
    forwards: float
    """Expected calls of the backbone on one device, guidance counted twice, of all micro-batches."""
    graded: int
    """Calls with a gradient among them."""
    updates: Mapping[str, int]
    """Slot -> optimiser updates."""

    @property
    def with_checkpointing(self) -> float:
        """Expected calls when a graded one costs `CHECKPOINT_COST`."""
        return self.forwards + (CHECKPOINT_COST - 1) * self.graded


def backward_cost(checked: CheckedManifest) -> float:
    """Return what a graded call costs beyond its forward pass, in forward passes: its backward, and a recomputed forward."""
    return CHECKPOINT_COST - 2 + float(checked.manifest.train.gradient_checkpointing)


def cycles(checked: CheckedManifest) -> tuple[Cycle, ...]:
    """Return the cost of a cycle on each stream in each phase; phases are cut where a loss, slot or stream begins or ends."""
    manifest = checked.manifest
    end = manifest.train.generator_steps
    cuts = {0, *(loss.from_step for loss in checked.losses), *(slot.from_step for slot in manifest.slots.values())}
    cuts |= {loss.until_step for loss in checked.losses if loss.until_step is not None}
    cuts |= {*checked.router.needs.begins.values()}
    starts = sorted(cut for cut in cuts if cut < end)
    found: list[Cycle] = []
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        for stream in checked.streams:
            cycle = _cycle(checked, stream, start, stop)
            if cycle.updates and checked.meets(stream, start, stop):
                found.append(cycle)
    return tuple(found)


def _cycle(checked: CheckedManifest, stream: str, start: int, stop: int) -> Cycle:
    forwards, graded, updates, sampled = 0.0, 0, {}, False
    for name, slot in checked.manifest.slots.items():
        active = [loss for loss in checked.losses if loss.slot == name and loss.active(start, stream)]
        if start < slot.from_step or not active:
            continue
        updates[name] = slot.updates
        graded += slot.updates * (sum(loss.loss.needs.forwards.graded for loss in active) - _spared(active))
        forwards += slot.updates * _update(checked, active)
        if slot.reuse_sample and sampled:
            whole = slot.reuse_sample == "trajectory"
            forwards -= (slot.updates if whole else 1) * _shared(checked, active)
            forwards += _continued(checked.manifest.sampler.steps, slot.updates) if whole else 0
        if name == STUDENT:
            # A graded call at the rollout's step is the sample that a later slot may take over.
            sampled = any(loss.loss.needs.forwards.rollout and loss.loss.needs.forwards.graded for loss in active)
    parts = checked.manifest.train.micro_batches()
    return Cycle(stream, start, stop, parts * forwards, parts * graded, updates)


def _shared(checked: CheckedManifest, active: list[CheckedLoss]) -> float:
    """Calls that the terms of one update share: the rollout, ``E[k] = (steps - 1) / 2``, and its sample."""
    needs = [loss.loss.needs.forwards for loss in active]
    rollout = (checked.manifest.sampler.steps - 1) / 2 if any(need.rollout for need in needs) else 0.0
    return rollout + max(need.sample for need in needs)


def _continued(steps: int, updates: int) -> float:
    """Expected calls that take a trajectory from one random step to the last of ``updates`` different ones."""
    visited = min(steps, updates)
    return visited * (steps + 1) / (visited + 1) - 1 - (steps - 1) / 2


def _spared(active: list[CheckedLoss]) -> int:
    """Graded calls at the rollout that a term need not make, since an earlier one of the update has made them."""
    shared = [loss.loss.needs.forwards.shared for loss in active]
    return sum(shared) - max(shared, default=0)


def _update(checked: CheckedManifest, active: list[CheckedLoss]) -> float:
    guidance = 1 if checked.description.guidance_scale == 1.0 else 2
    needs = [loss.loss.needs.forwards for loss in active]
    calls = sum(need.graded + need.plain + guidance * need.teacher for need in needs)
    return _shared(checked, active) - _spared(active) + calls
