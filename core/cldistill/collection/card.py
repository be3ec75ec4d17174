"""The model card of a collection: what it is, how to run it, which word calls which effect (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cldistill.collection.index import WEIGHTS, CollectionEffect


@dataclass(frozen=True)
class UsageRequest:
    """What a base needs to know to write its usage."""

    prompt: str
    """The prompt of one effect, for the example."""
    steps: int
    shift: float
    sigmas: tuple[float, ...] | None = None
    """Sigmas to hand to the pipeline, before its shift; None: its own ``linspace(1, 1/steps, steps)`` is right."""


@dataclass(frozen=True)
class Usage:
    """How to run a collection outside cldistill, for one family of bases."""

    python: str
    """A script that runs in the collection's folder with nothing but diffusers."""
    comfyui: str
    """ComfyUI's nodes and settings, in Markdown."""
    licence: str
    """The base's licence, in one sentence."""


@runtime_checkable
class DescribesUsage(Protocol):
    """A base that knows how stock programs run a LoRA of its family (optional)."""

    def usage(self, request: UsageRequest) -> Usage:
        """Return the usage."""


@dataclass(frozen=True)
class Card:
    """Everything that the card shows."""

    title: str
    effects: Sequence[CollectionEffect]
    metadata: Mapping[str, str]
    steps: int
    shift: float
    usage: Usage | None
    samples: Mapping[str, str]
    """Effect -> picture, relative to the card."""
    removed: Sequence[str] = ()
    """Effects that were taken out of the list since: the weights still know them."""

    def text(self) -> str:
        """Return the card as Markdown with the Hub's front matter."""
        sections = (self._front_matter(), self._head(), self._effects(), self._run(), self._comfyui(), self._end())
        return "\n\n".join(section for section in sections if section) + "\n"

    def pieces(self) -> tuple[str, ...]:
        """Return the parts of the text that depend on the effects: what to exchange in a card when those change."""
        return self._head(), self._effects(), self._own(), repr(self.effects[0].prompt)

    def _front_matter(self) -> str:
        base = self.metadata["cldistill.base"]
        lines = ["---", "library_name: diffusers", "pipeline_tag: image-to-image"]
        if base.count("/") == 1 and ":" not in base:
            lines += [f"base_model: {base}", "base_model_relation: adapter"]
        return "\n".join([*lines, "tags: [lora, image-editing, cldistill, few-step]", "---"])

    def _head(self) -> str:
        count = len(self.effects)
        base, rank, weights, steps = (
            self.metadata[f"cldistill.{key}"] for key in ("base", "rank", "weights", "generator_steps")
        )
        return (
            f"# {self.title}\n\n{count} image-editing effect{'s' if count > 1 else ''} and {self.steps}-step sampling "
            f"in one LoRA for `{base}` (rank {rank}, {weights} weights after {steps} generator steps). "
            "Made with cldistill, after CollectionLoRA (arXiv 2605.25378)."
        )

    def _effects(self) -> str:
        rows = ["| effect | trigger | prompt | sample |", "|---|---|---|---|"]
        for effect in self.effects:
            sample = f"![{effect.name}]({self.samples[effect.name]})" if effect.name in self.samples else ""
            trigger = f"`{effect.trigger}`" if effect.trigger else ""
            rows.append(f"| {effect.name} | {trigger} | {_cell(effect.prompt)} | {sample} |")
        two = [effect.name for effect in self.effects[:2]]
        compose = (
            "\n\nTwo at once: `Please apply {A} to the input image, and then apply {B}.` with the prompts of both "
            f"(`cldistill generate` writes it: `--effect {two[0]} --effect {two[-1]}`)."
        )
        gone = (
            f"\n\nTaken out of this list, and still known to the weights: {', '.join(self.removed)}."
            if self.removed
            else ""
        )
        return "## Effects\n\n" + "\n".join(rows) + (compose if len(two) > 1 else "") + gone

    def _own(self) -> str:
        return (
            "```python\nfrom cldistill.collection import Collection\n\n"
            f'Collection.load(".").generate("photo.png", "{self.effects[0].name}").save("edited.png")\n```'
        )

    def _run(self) -> str:
        own = self._own()
        if self.usage is None:
            return f"## Run it\n\nWith cldistill:\n\n{own}"
        return (
            f"## Run it\n\nWith diffusers alone:\n\n```python\n{self.usage.python.strip()}\n```\n\n"
            "All four settings of `scheduler_config.json` are needed: with `shift` alone, dynamic shifting ignores it. "
            "Guidance stays off (`true_cfg_scale=1.0`, no negative prompt): the guided teachers are distilled in. "
            "Pipelines do not pass their `generator` to the scheduler, whose noise is the global generator's: "
            f"`torch.manual_seed` makes a picture repeatable.\n\nWith cldistill:\n\n{own}"
        )

    def _comfyui(self) -> str:
        return f"## ComfyUI\n\n{self.usage.comfyui.strip()}" if self.usage is not None else ""

    def _end(self) -> str:
        licence = self.usage.licence if self.usage is not None else "See the base model's own page."
        return (
            f"## Files and licences\n\n`{WEIGHTS}` holds the weights and, in its header, all that this page says; "
            "`effects.json` the effects; `scheduler_config.json` the sampler; `manifest.resolved.yaml` the run that "
            f"made it.\n\nBase model: {licence} The effects carry the licences of the pictures and adapters that "
            "taught them (see the manifest); check them before you share this file."
        )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
