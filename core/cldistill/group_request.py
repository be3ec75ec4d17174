"""What a grouper is given: the effects, and a run of the manifest in which their interference can be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cldistill.records import EffectInfo, Route
from cldistill.training.run import Run
from cldistill.training.update import STUDENT, TermContext, UpdateMemo

STREAM = "effect"


def _nowhere(share: float) -> None:
    """Show nothing."""


@dataclass
class GroupRequest:
    """Implements `cldistill.protocols.GroupingRequest`; ``assemble`` is called once, by the first who needs the run."""

    effects: Sequence[EffectInfo]
    groups: int
    assemble: Callable[[], Run]
    advance: Callable[[float], None] = _nowhere
    _run: Run | None = field(default=None, init=False, repr=False)

    def run(self) -> Run:
        """Return the measuring run."""
        if self._run is None:
            self._run = self.assemble()
        return self._run

    def update(self, effect: str, draw: int) -> TermContext:
        """Return an update that trains the student on ``batch_size`` pairs of one effect, keyed by effect and draw."""
        run = self.run()
        random = run.random.child("group", effect, draw)
        batch = run.dataset.draw(Route(STREAM, {effect: 1.0}), random.child("batch"), run.batch_size)
        return TermContext(run, 0, STUDENT, batch, random, random, UpdateMemo())
