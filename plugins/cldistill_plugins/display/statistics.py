"""The running numbers of a run, as the display shows them: smoothed, counted and bucketed, without any drawing."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from cldistill.records import StepResult

RECENT = 48
"""Generator steps whose stream stays visible, and buckets of a trend."""
IDLE_STEPS = 25
"""Generator steps after which a loss that has not counted is drawn dim, and left out of plain lines."""
"""Stands for the pool of a batch whose items come from several."""


class Smooth:
    """Exponential moving average that starts at its first value instead of at zero; non-finite values do not count."""

    def __init__(self, decay: float = 0.95) -> None:
        self.decay = decay
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float) -> None:
        """Take one more value."""
        if math.isfinite(value):
            self._sum = self.decay * self._sum + (1 - self.decay) * value
            self._weight = self.decay * self._weight + (1 - self.decay)

    @property
    def value(self) -> float | None:
        """The average, None before the first finite value."""
        return self._sum / self._weight if self._weight else None


class Trend:
    """A whole run in at most ``size`` buckets: when they are full, neighbours merge and each covers twice as many."""

    def __init__(self, size: int = RECENT) -> None:
        self.size = size
        self._buckets: list[float] = []
        self._open: list[float] = []
        self._span = 1

    def add(self, value: float) -> None:
        """Take one more value; non-finite ones are left out."""
        if not math.isfinite(value):
            return
        self._open.append(value)
        if len(self._open) < self._span:
            return
        self._buckets.append(sum(self._open) / len(self._open))
        self._open = []
        if len(self._buckets) == self.size:
            self._buckets = [(a + b) / 2 for a, b in zip(self._buckets[::2], self._buckets[1::2], strict=True)]
            self._span *= 2

    @property
    def values(self) -> tuple[float, ...]:
        """Mean of each bucket, oldest first."""
        return tuple(self._buckets)


@dataclass
class LossStatistics:
    """One loss of one slot."""

    last: float = math.nan
    step: int = 0
    """Generator step in which it last counted."""
    smooth: Smooth = field(default_factory=Smooth)
    trend: Trend = field(default_factory=Trend)


class Statistics:
    """All numbers that the display shows: taken in by `add` from each step's result, drawn from a `snapshot`."""

    def __init__(self, total: int, start_step: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.step = start_step
        self.checkpoint: int | None = start_step or None
        self.stream = ""
        self.pools: tuple[str, ...] = ()
        self.recent: deque[tuple[str, bool]] = deque(maxlen=RECENT)
        """Pool (the stream where there are several) and whether it was skipped, of the last generator steps."""
        self.counts: Counter[str] = Counter()
        """Generator steps of each pool, or stream, in this session, in order of first appearance."""
        self.losses: dict[tuple[str, str], LossStatistics] = {}
        """(slot, loss) -> its numbers."""
        self.grad_norms: dict[str, Smooth] = {}
        self.seconds_per_step = Smooth(0.9)
        """Time of the step itself."""
        self.wall_per_step = Smooth(0.95)
        """Time between the ends of two steps: includes checkpoints and sample grids."""
        self.finished_at = clock()
        """Clock when the last step ended."""
        self.forwards = 0
        self.memory_mb = 0.0
        self.skipped = 0
        """Steps in which an update was left out for non-finite numbers."""
        self._clock = clock

    def add(self, result: StepResult) -> None:
        """Take the result of one generator step; one without an update leaves what came before."""
        now = self._clock()
        self.wall_per_step.add(now - self.finished_at)
        self.finished_at = now
        self.seconds_per_step.add(result.seconds)
        self.step = result.step
        if not result.updates:
            return
        first, skipped = result.updates[0], any(update.skipped for update in result.updates)
        self.stream, self.pools = first.stream, first.pools
        self.forwards, self.memory_mb = result.forwards, result.peak_memory_mb
        self.skipped += skipped
        pool = first.pools[0] if len(first.pools) == 1 else first.stream
        self.recent.append((pool, skipped))
        self.counts[pool] += 1
        for update in result.updates:
            self.grad_norms.setdefault(update.slot, Smooth(0.9)).add(update.grad_norm)
            for name, value in update.losses.items():
                loss = self.losses.setdefault((update.slot, name), LossStatistics())
                loss.last, loss.step = value, result.step
                loss.smooth.add(value)
                loss.trend.add(value)

    def idle(self, loss: LossStatistics) -> bool:
        """Return whether a loss has not counted for long: its phase is over, or has not begun."""
        return self.step - loss.step >= IDLE_STEPS

    def eta(self, now: float) -> float | None:
        """Seconds to the end at the present pace, None before the first step."""
        if self.wall_per_step.value is None:
            return None
        return max(0.0, (self.total - self.step) * self.wall_per_step.value - (now - self.finished_at))

    def snapshot(self) -> Statistics:
        """Return a copy that no later step changes: the thread that draws never sees half an update."""
        return deepcopy(self)
