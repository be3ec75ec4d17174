"""Evaluators by weights or an endpoint, registered: nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import Component, metric
from cldistill.markers import hookimpl
from cldistill.protocols import Metric
from cldistill_plugins.evaluators.clip import ClipSettings, build_clip, describe_clip
from cldistill_plugins.evaluators.dino import DinoSettings, build_dino, describe_dino
from cldistill_plugins.evaluators.dreamsim import DreamSimSettings, build_dreamsim, describe_dreamsim
from cldistill_plugins.evaluators.editreward import EditRewardSettings, build_editreward, describe_editreward
from cldistill_plugins.evaluators.judge import JudgeSettings, build_judge, describe_judge
from cldistill_plugins.evaluators.likeness import LikenessSettings, build_likeness, describe_likeness


@hookimpl
def register_metrics() -> Sequence[Component[Any, Metric]]:
    """Metrics for any effect; those that lack their weights or endpoint are not measured."""
    return [
        metric("clip", "CLIP similarity to an after-picture, the source or the instruction", ClipSettings,
               describe_clip, build_clip),
        metric("dino", "DINO similarity to the source: is the subject kept", DinoSettings, describe_dino, build_dino),
        metric("dreamsim", "DreamSim distance to an after-picture or the source", DreamSimSettings,
               describe_dreamsim, build_dreamsim),
        metric("editreward", "a reward model's opinion of the edit, by its instruction", EditRewardSettings,
               describe_editreward, build_editreward),
        metric("likeness", "nearness to the effect's own LoRA, to held-out truths, and to the source; needs no weights",
               LikenessSettings, describe_likeness, build_likeness),
        metric("mllm-judge", "bad cases and subject identity (BCR, VSA), judged in two stages behind an endpoint",
               JudgeSettings, describe_judge, build_judge),
    ]  # fmt: skip
