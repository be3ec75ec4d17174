"""``base``: the bare base model is its own teacher (an effect that the base can already do, at more steps)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cldistill.component import Needs, Settings
from cldistill.protocols import TeacherRequest

if TYPE_CHECKING:
    from cldistill.weights import AdapterState


class BareBaseSettings(Settings):
    """``base`` has no options."""


def describe_bare_base(settings: BareBaseSettings) -> Needs:
    """Needs nothing."""
    return Needs()


class BareBase:
    """Implements `cldistill.protocols.TeacherSource`."""

    def adapter(self, request: TeacherRequest) -> AdapterState | None:
        """Return None: no adapter is mounted."""
        return None
