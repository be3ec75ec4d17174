"""AOP, asymmetric orthogonal prompting: ``c_student = [trigger, caption]`` (arXiv 2605.25378 section 3.2).

The teacher keeps the prompt that its LoRA was trained with; the student (and with it the critic) gets a word of its own
and a caption, so that fifty effects do not share one direction of the text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cldistill.component import BuildContext, Needs, Settings
from cldistill.errors import OptionsError, nearest
from cldistill.records import EffectInfo, Prompts
from cldistill_plugins.collectionlora.captioners import Captioner, TemplateCaptioner, check_template
from cldistill_plugins.collectionlora.triggers import assign_triggers, trigger_word
from cldistill_plugins.endpoint.api import Address, VariableName


def _check_word(word: str) -> str:
    if not re.fullmatch(r"[^\W\d_][\w-]{2,}", word):
        raise ValueError(f"{word!r} is no trigger: one word of at least three letters, without spaces")
    return word


Word = Annotated[str, AfterValidator(_check_word)]
Template = Annotated[str, AfterValidator(check_template)]


class AopSettings(Settings):
    """Options of ``aop``."""

    captioner: Literal["template", "vlm"] = Field("template", description="who writes the captions")
    template: Template = Field("{prompt}", description="template captioner: may hold {prompt} and {name}")
    captions: Mapping[str, str] = Field(
        default_factory=dict, description="effect -> caption, instead of the captioner's"
    )
    triggers: Mapping[str, Word] = Field(
        default_factory=dict, description="effect -> trigger, instead of its name's word"
    )
    endpoint: Address | None = Field(None, description="vlm: base address of an OpenAI-compatible API")
    model: str | None = Field(None, description="vlm: name of the model there")
    api_key_env: VariableName | None = Field(None, description="vlm: NAME of the environment variable with the key")
    timeout: float = Field(60.0, gt=0, description="vlm: seconds for one request")
    retries: int = Field(4, ge=0, le=20, description="vlm: further attempts after the first")
    temperature: float | None = Field(0.0, ge=0, description="vlm: sampling temperature; null leaves it to the server")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.captioner == "vlm" and not (self.endpoint and self.model):
            raise ValueError("captioner: vlm needs `endpoint` and `model`")
        return self


def describe_aop(settings: AopSettings) -> Needs:
    """The VLM looks at the effects' pairs; the template needs nothing."""
    return Needs(pairs=True, packages=("httpx",)) if settings.captioner == "vlm" else Needs()


def build_aop(settings: AopSettings, context: BuildContext) -> Aop:
    """Return the isolator; where ``context.weights`` is false (``check``, ``plan``) it asks no endpoint."""
    return Aop(settings, context, make_captioner(settings, context))


def make_captioner(settings: AopSettings, context: BuildContext) -> Captioner:
    """Return the captioner that the settings name; answers of a VLM are cached under ``context.cache/captions``."""
    if settings.captioner == "template":
        return TemplateCaptioner(settings.template)
    from cldistill_plugins.collectionlora.vlm import HELP, VlmCaptioner
    from cldistill_plugins.endpoint.api import Endpoint

    assert settings.endpoint is not None and settings.model is not None, "the settings were validated"
    endpoint = Endpoint(
        settings.endpoint,
        settings.model,
        settings.api_key_env,
        settings.timeout,
        settings.retries,
        settings.temperature,
        HELP,
    )
    return VlmCaptioner(endpoint, context.cache / "captions")


class Aop:
    """Implements `cldistill.protocols.PromptIsolator`."""

    def __init__(self, settings: AopSettings, context: BuildContext, captioner: Captioner) -> None:
        names = [effect.name for effect in context.effects]
        for name in settings.captions:
            if name not in names:
                raise OptionsError(f"captions.{name}: there is no effect {name!r}{nearest(name, names)}")
        self._captions = dict(settings.captions)
        self._captioner = captioner
        self._ask = context.weights
        self.triggers = assign_triggers(names, settings.triggers)

    def isolate(self, effect: EffectInfo) -> Prompts:
        """Return trigger and caption for the student, the original prompt for its teacher."""
        trigger = self.triggers.get(effect.name) or trigger_word(effect.name)
        return Prompts(student=f"{trigger} {self._caption(effect)}", teacher=effect.prompt, trigger=trigger)

    def general(self, instruction: str) -> Prompts:
        """Return the instruction for all: in the general stream the bare base is the teacher."""
        return Prompts(student=instruction, teacher=instruction)

    def _caption(self, effect: EffectInfo) -> str:
        written = self._captions.get(effect.name)
        if written is not None:
            return written
        return self._captioner.caption(effect) if self._ask else self._captioner.preview(effect)
