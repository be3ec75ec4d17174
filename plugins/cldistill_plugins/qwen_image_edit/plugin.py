"""Registers the base model ``qwen-image-edit`` (imports no torch until it is built)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import BuildContext, Component, Needs, base_model
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel
from cldistill_plugins.qwen_image_edit.description import describe_base
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings


def describe(settings: QwenImageEditSettings) -> Needs:
    """Describe the base from its config alone."""
    return Needs(base=describe_base(settings))


def build(settings: QwenImageEditSettings, context: BuildContext) -> BaseModel:
    """Build the base; weights are read when they are first used."""
    from cldistill_plugins.qwen_image_edit.base import QwenImageEdit

    return QwenImageEdit(settings, device=context.device, weights=context.weights)


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """Offer Qwen-Image-Edit-2509, 2511, and anything in the same diffusers layout."""
    return [
        base_model(
            "qwen-image-edit",
            "Qwen-Image-Edit-2509/2511 or a folder of the same classes, through diffusers' QwenImageEditPlusPipeline",
            QwenImageEditSettings,
            describe,
            build,
        )
    ]
