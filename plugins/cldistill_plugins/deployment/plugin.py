"""The grouper, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Command, Component, grouper
from cldistill.markers import hookimpl
from cldistill.protocols import Grouper
from cldistill_plugins.deployment.settings import (
    LeastInterferenceSettings,
    build_least_interference,
    describe_least_interference,
)


@hookimpl
def register_groupers() -> Sequence[Component[Any, Grouper]]:
    """``least-interference``."""
    return [
        grouper(
            "least-interference",
            "balanced groups of the effects that conflict least: by their gradients, or by which effects are confused",
            LeastInterferenceSettings,
            describe_least_interference,
            build_least_interference,
        )
    ]


@hookimpl
def register_commands() -> Sequence[Command]:
    """``group``."""
    return [
        Command(
            "group",
            "Split a bank into several collections of effects that interfere least.",
            "cldistill_plugins.deployment.command:group",
        )
    ]
