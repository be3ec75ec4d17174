"""Registers the base model ``pixel-kontext`` with cldistill; torch is imported when it is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cldistill.component import BuildContext, Component, base_model
from cldistill.markers import hookimpl
from cldistill.protocols import BaseModel
from pixel_kontext.description import PixelKontextSettings, describe_base


def build(settings: PixelKontextSettings, context: BuildContext) -> BaseModel:
    """Build the base."""
    from pixel_kontext.base import PixelKontext

    return PixelKontext(settings, context.device)


@hookimpl
def register_base_models() -> Sequence[Component[Any, BaseModel]]:
    """``pixel-kontext``."""
    summary = "FLUX.1-Kontext's transformer, tiny, random and in pixel space"
    return [base_model("pixel-kontext", summary, PixelKontextSettings, describe_base, build)]
