"""The observers ``tensorboard`` and ``tracker``, registered: nothing here imports torch, accelerate or a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field, field_validator

from cldistill.component import BuildContext, Component, LocalPath, Needs, Settings, observer
from cldistill.errors import OptionsError
from cldistill.markers import hookimpl

PACKAGE = "tensorboard"
SECRETS = ("key", "token", "password", "secret")


class TensorboardSettings(Settings):
    """Options of ``tensorboard``."""

    folder: LocalPath | None = Field(None, description="where the events go, relative to the manifest; OUT/tensorboard")
    flush_secs: int = Field(30, ge=1, description="seconds between two writes to the disk")


class TrackerSettings(Settings):
    """Options of ``tracker``."""

    name: Literal["wandb", "mlflow", "trackio", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "tensorboard"] = (
        Field(description="the tracker; its own package must be installed")
    )
    project: str | None = Field(None, description="project or experiment; by default the run's name")
    settings: dict[str, Any] = Field(
        default={}, description="what the tracker's own start takes, such as {entity: my-team}"
    )

    @field_validator("settings")
    @classmethod
    def _no_secrets(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Refuse what a published manifest must not hold."""
        for name in value:
            if any(name.lower().split("_")[-1] == word for word in SECRETS):
                raise ValueError(
                    f"{name!r} would stand in the manifest that goes with the collection; give it to the tracker by its own "
                    "login or environment variable"
                )
        return value


def describe_tensorboard(settings: TensorboardSettings) -> Needs:
    """It needs its package, which cldistill itself does not."""
    return Needs(packages=(PACKAGE,), install="pip install 'cldistill[tensorboard]'")


def describe_tracker(settings: TrackerSettings) -> Needs:
    """It needs the tracker's package."""
    return Needs(packages=(settings.name,), install=f"pip install {settings.name}")


def build_tensorboard(settings: TensorboardSettings, context: BuildContext) -> object:
    """Return the observer.  Raises `OptionsError` where the package is missing."""
    must_be_there("tensorboard", PACKAGE, "pip install 'cldistill[tensorboard]'")
    from cldistill_plugins.trackers.tracker import TrackerObserver

    return TrackerObserver(PACKAGE, None, {"flush_secs": settings.flush_secs}, settings.folder)


def build_tracker(settings: TrackerSettings, context: BuildContext) -> object:
    """Return the observer.  Raises `OptionsError` where the package is missing."""
    must_be_there("tracker", settings.name, f"pip install {settings.name}")
    from cldistill_plugins.trackers.tracker import TrackerObserver

    return TrackerObserver(settings.name, settings.project, settings.settings, None)


def must_be_there(part: str, package: str, install: str) -> None:
    """Refuse an observer whose package is missing.

    Raises:
        OptionsError: with what installs it.
    """
    if find_spec(package) is None:
        raise OptionsError(
            f"observer {part!r} needs the package {package}, which is not installed: {install}, or take the observer out of "
            "the manifest"
        )


@hookimpl
def register_observers() -> Sequence[Component[Any, object]]:
    """``tensorboard`` and ``tracker``."""
    return [
        observer(
            "tensorboard",
            "losses, gradient norms, speed, memory and sample grids in TensorBoard",
            TensorboardSettings,
            describe_tensorboard,
            build_tensorboard,
        ),
        observer(
            "tracker",
            "the same in Weights & Biases, MLflow or any other tracker that accelerate knows",
            TrackerSettings,
            describe_tracker,
            build_tracker,
        ),
    ]
