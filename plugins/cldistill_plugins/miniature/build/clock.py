"""Training by the clock: learning rates follow the share of the planned time that has passed, across kills and resumes.

The time is that of the processor, so that a busy or a suspended machine makes a training longer and not shorter.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

WARM_UP_STEPS = 60


@dataclass(slots=True)
class Clock:
    """The progress of a training of `minutes` has come.

    Attributes:
        decay: share of the time, at its end, in which the rate falls; more minutes may be given until then.
        elapsed: seconds trained so far, in all runs together.
        step: updates made so far.
    """

    minutes: float
    decay: float = 1.0
    elapsed: float = 0.0
    step: int = 0
    _last: float = field(default_factory=time.process_time)

    def tick(self) -> float:
        """Add the time since the last call and return the seconds trained in all."""
        now = time.process_time()
        self.elapsed += now - self._last
        self._last = now
        return self.elapsed

    @property
    def progress(self) -> float:
        """Share of the planned time that has passed, at most 1."""
        return min(1.0, self.elapsed / (60 * self.minutes))

    @property
    def factor(self) -> float:
        """Learning-rate factor: a short linear warm-up, and a cosine to zero over the last part of the planned time."""
        falling = max(0.0, 1 - (1 - self.progress) / self.decay)
        return min(1.0, (self.step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * falling))


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint aside and move it into place, so that a kill never leaves half a file."""
    aside = path.with_suffix(".part")
    torch.save(state, aside)
    aside.replace(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None where there is none."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
