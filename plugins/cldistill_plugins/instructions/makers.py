"""The makers that ``cldistill instructions --maker`` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cldistill.component import Settings
from cldistill_plugins.instructions.mllm_maker import MllmSettings, make_mllm
from cldistill_plugins.instructions.request import InstructionMaker
from cldistill_plugins.instructions.template_maker import TemplateMaker, TemplateSettings


class MakerEntry(NamedTuple):
    """A maker's options, and the function that makes it of them and of the cache's folder."""

    settings: type[Settings]
    make: Callable[[Any, Path], InstructionMaker]


MAKERS: Mapping[str, MakerEntry] = {
    "templates": MakerEntry(TemplateSettings, lambda settings, cache: TemplateMaker()),
    "mllm": MakerEntry(MllmSettings, make_mllm),
}
"""``templates``: sentences with gaps, offline, without looking.  ``mllm``: a vision model behind an endpoint looks."""
