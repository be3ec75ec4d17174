"""The model card of a collection, from the template ``card.md``: effects, triggers, how to run it (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cldistill.collection.index import WEIGHTS, CollectionEffect
from cldistill.schedule import Schedule

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class UsageRequest:
    """The facts of one collection from which a base writes its `Usage`; made by the export."""

    prompt: str
    """The prompt of one effect, for the example."""
    schedule: Schedule
    sigmas: tuple[float, ...] | None = None
    """Sigmas to hand to the pipeline, before its shift; None: its own ``linspace(1, 1/steps, steps)`` is right."""


@dataclass(frozen=True)
class Usage:
    """Instructions to run a collection outside cldistill, written by its base and shown in the card."""

    python: str
    """A script that runs in the collection's folder with nothing but diffusers."""
    comfyui: str
    """ComfyUI's nodes and settings, in Markdown."""
    licence: str
    """The base's licence, in one sentence."""


@dataclass(frozen=True)
class Card:
    """All that the card of a collection shows; made by the export, and again when its effects are edited."""

    title: str
    effects: Sequence[CollectionEffect]
    metadata: Mapping[str, str]
    steps: int
    usage: Usage | None
    samples: Mapping[str, str]
    """Effect -> picture, relative to the card."""
    removed: Sequence[str] = ()
    """Effects that were taken out of the list since: the weights still know them."""

    def text(self) -> str:
        """Return the card as Markdown with the Hub's front matter."""
        return _template().render(self._values()) + "\n"

    def pieces(self) -> tuple[str, ...]:
        """Return the parts of the text that depend on the effects: what to exchange in a card when those change."""
        template = _template()
        blocks = (
            template.blocks[name](template.new_context(self._values())) for name in ("head", "listing", "example")
        )
        return *("".join(block).strip() for block in blocks), repr(self.effects[0].prompt)

    def _values(self) -> dict[str, Any]:
        own = {key: self.metadata[f"cldistill.{key}"] for key in ("base", "rank", "weights", "generator_steps")}
        base = own["base"]
        on_the_hub = base.count("/") == 1 and ":" not in base
        return vars(self) | own | {"file": WEIGHTS, "base_on_the_hub": on_the_hub}


def _template() -> Template:
    from jinja2 import Environment, PackageLoader

    loader = PackageLoader("cldistill.collection")
    return Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("card.md")
