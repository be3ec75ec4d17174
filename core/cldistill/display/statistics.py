"""The running numbers of a run, as the display shows them: smoothed, counted and bucketed, without any drawing."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cldistill.records import StepResult, UpdateResult

RECENT = 48
"""Generator steps whose stream stays visible, and buckets of a trend."""
MIXED = "mixed"
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


@dataclass(frozen=True)
class LossView:
    """One loss of one slot."""

    slot: str
    name: str
    last: float
    smooth: float | None
    trend: tuple[float, ...]
    idle: int
    """Generator steps since it last counted."""


@dataclass(frozen=True)
class View:
    """All that the display draws, in one immutable piece: the drawing thread never sees half an update."""

    step: int
    total: int
    stream: str = ""
    pools: tuple[str, ...] = ()
    recent: tuple[tuple[str, bool], ...] = ()
    """Pool (or ``mixed``) and whether it was skipped, of the last generator steps."""
    counts: tuple[tuple[str, int], ...] = ()
    """Generator steps of each pool in this session, in order of first appearance."""
    losses: tuple[LossView, ...] = ()
    grad_norms: tuple[tuple[str, float | None], ...] = ()
    seconds_per_step: float | None = None
    """Smoothed time of the step itself."""
    wall_per_step: float | None = None
    """Smoothed time between the ends of two steps: includes checkpoints and sample grids."""
    finished_at: float = 0.0
    """Clock when the last step ended."""
    forwards: int = 0
    memory_mb: float = 0.0
    skipped: int = 0
    """Steps in which an update was left out for non-finite numbers."""
    checkpoint: int | None = None

    def eta(self, now: float) -> float | None:
        """Seconds to the end at the present pace, None before the first step."""
        if self.wall_per_step is None:
            return None
        return max(0.0, (self.total - self.step) * self.wall_per_step - (now - self.finished_at))


@dataclass
class _Loss:
    last: float = math.nan
    step: int = 0
    smooth: Smooth = field(default_factory=Smooth)
    trend: Trend = field(default_factory=Trend)


class Tally:
    """Takes step results, gives a `View`."""

    def __init__(self, total: int, start_step: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.step = start_step
        self.checkpoint: int | None = start_step or None
        self._clock = clock
        self._last_end = clock()
        self._seconds, self._wall = Smooth(0.9), Smooth(0.95)
        self._losses: dict[tuple[str, str], _Loss] = {}
        self._norms: dict[str, Smooth] = {}
        self._recent: deque[tuple[str, bool]] = deque(maxlen=RECENT)
        self._counts: Counter[str] = Counter()
        self._skipped = 0
        self._last: StepResult | None = None
        """The last step that had an update: one without shows what came before."""

    def add(self, result: StepResult) -> None:
        """Take the result of one generator step."""
        now = self._clock()
        self._wall.add(now - self._last_end)
        self._last_end = now
        self._seconds.add(result.seconds)
        self.step = result.step
        self._last = result if result.updates else self._last
        for update in result.updates:
            self._add_update(update, result.step)
        skipped = any(update.skipped for update in result.updates)
        self._skipped += skipped
        if result.updates:
            pools = result.updates[0].pools
            pool = pools[0] if len(pools) == 1 else MIXED
            self._recent.append((pool, skipped))
            self._counts[pool] += 1

    def _add_update(self, update: UpdateResult, step: int) -> None:
        self._norms.setdefault(update.slot, Smooth(0.9)).add(update.grad_norm)
        for name, value in update.losses.items():
            loss = self._losses.setdefault((update.slot, name), _Loss())
            loss.last, loss.step = value, step
            loss.smooth.add(value)
            loss.trend.add(value)

    def saved(self, step: int, path: Path) -> None:
        """Remember the last checkpoint."""
        self.checkpoint = step

    def view(self) -> View:
        """Return everything as it stands."""
        last = self._last
        if last is None:
            return View(self.step, self.total, finished_at=self._last_end, checkpoint=self.checkpoint)
        return View(
            step=self.step,
            total=self.total,
            stream=last.updates[0].stream,
            pools=last.updates[0].pools,
            recent=tuple(self._recent),
            counts=tuple(self._counts.items()),
            losses=tuple(
                LossView(slot, name, loss.last, loss.smooth.value, loss.trend.values, self.step - loss.step)
                for (slot, name), loss in self._losses.items()
            ),
            grad_norms=tuple((slot, norm.value) for slot, norm in self._norms.items()),
            seconds_per_step=self._seconds.value,
            wall_per_step=self._wall.value,
            finished_at=self._last_end,
            forwards=last.forwards,
            memory_mb=last.peak_memory_mb,
            skipped=self._skipped,
            checkpoint=self.checkpoint,
        )
