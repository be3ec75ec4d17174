"""The ``tensorboard`` observer, registered: nothing here imports torch or tensorboard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, LocalPath, Needs, Settings, observer
from cldistill.errors import OptionsError
from cldistill.markers import hookimpl

PACKAGE = "tensorboard"


class TensorboardSettings(Settings):
    """Options of ``tensorboard``."""

    folder: LocalPath | None = Field(None, description="where the events go, relative to the manifest; OUT/tensorboard")
    flush_secs: int = Field(30, ge=1, description="seconds between two writes to the disk")


def describe(settings: TensorboardSettings) -> Needs:
    """It needs its package, which cldistill itself does not."""
    return Needs(packages=(PACKAGE,), install="pip install 'cldistill[tensorboard]'")


def build(settings: TensorboardSettings, context: BuildContext) -> object:
    """Return the observer.  Raises `OptionsError` where the package is missing."""
    if find_spec(PACKAGE) is None:
        raise OptionsError(
            "observer 'tensorboard' needs the package tensorboard, which is not installed: "
            "pip install 'cldistill[tensorboard]', or take the observer out of the manifest"
        )
    from cldistill_plugins.tensorboard.writer import TensorboardObserver

    return TensorboardObserver(settings.folder, settings.flush_secs)


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """TensorBoard."""
    return [
        observer(
            "tensorboard",
            "losses, gradient norms, speed, memory and sample grids in TensorBoard",
            TensorboardSettings,
            describe,
            build,
        )
    ]
