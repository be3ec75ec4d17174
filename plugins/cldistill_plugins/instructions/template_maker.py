"""General instructions from templates: offline, seeded, and blind to the picture."""

from __future__ import annotations

import random
from dataclasses import dataclass
from string import Formatter

from cldistill.component import Settings

from .request import InstructionRequest
from .template_words import GAPS, TEMPLATES, VERSION


class TemplateSettings(Settings):
    """``templates`` has no options."""


@dataclass(frozen=True)
class TemplateMaker:
    """The maker ``templates`` of the command ``instructions``."""

    concurrency: int = 1
    identity: str = f"templates {VERSION}"

    def instruction(self, request: InstructionRequest) -> str:
        """Return a sentence of the category with its gaps filled, drawn by the request's seed."""
        draw = random.Random(request.seed)
        template = draw.choice(TEMPLATES[request.category])
        gaps = {gap for _, gap, _, _ in Formatter().parse(template) if gap}
        return template.format(**{gap: draw.choice(GAPS[gap]) for gap in sorted(gaps)})
