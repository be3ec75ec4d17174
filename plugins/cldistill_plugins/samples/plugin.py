"""Sample grids, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import BuildContext, Component, Needs, Settings, observer
from cldistill.markers import hookimpl


class SampleGridsSettings(Settings):
    """``sample-grids`` has no options of its own: the manifest's ``samples:`` says what is drawn, and when."""


def describe_sample_grids(settings: SampleGridsSettings) -> Needs:
    """Needs nothing."""
    return Needs()


def build_sample_grids(settings: SampleGridsSettings, context: BuildContext) -> object:
    """Return the observer."""
    from cldistill_plugins.samples.sample_grids import SampleGrids
    from cldistill_plugins.samples.truths import known_truths

    manifest = context.outline.manifest
    if manifest is None or manifest.samples is None:
        return SampleGrids(None)
    steps = manifest.targets.steps if manifest.targets else 40
    untaught = frozenset(effect.name for effect in manifest.effects if effect.teacher is None)
    return SampleGrids(manifest.samples, steps, known_truths(context), untaught)


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """``sample-grids``: draws what ``samples:`` asks for."""
    return [
        observer(
            "sample-grids",
            "a labelled grid of held-out pictures every so many steps, where the manifest has `samples:`",
            SampleGridsSettings,
            describe_sample_grids,
            build_sample_grids,
            automatic=True,
            serves="samples",
        )
    ]
