"""The two scores that BS-DMD and TS-DMD compare, as `check` and `plan` see them: the critic's, and the real one.  No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from cldistill.component import Needs
from cldistill_plugins.collectionlora.pdsr import EFFECT

REAL = "slot of the real score, such as a frozen copy of the student as it stood; null: the effect's teacher"


class Scores(Protocol):
    """The options of a loss that say whose scores it compares."""

    @property
    def critic(self) -> str:
        """Slot of the fake score."""

    @property
    def real(self) -> str | None:
        """Slot of the real score; None: the mounted teacher."""


def compared(settings: Scores, needs: Needs) -> Needs:
    """Add the calls of both scores to what a loss needs.

    A real score by a slot is that of effects alone: on a general item it would be what the student has forgotten.
    """
    calls, real = needs.forwards, settings.real
    if real is None:
        return replace(
            needs, predicts=frozenset({settings.critic}), teacher=True, forwards=replace(calls, plain=1, teacher=1)
        )
    return replace(
        needs,
        predicts=frozenset({settings.critic, real}),
        streams=frozenset({EFFECT}),
        forwards=replace(calls, plain=2),
    )
