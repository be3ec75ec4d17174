"""``mllm-judge``: BCR and VSA by a multimodal model behind an endpoint, by the paper's two-stage rule.

BCR is the share of bad cases.  VSA is the mean of 0 for a bad case and of the identity's score, 1 to 5, for a good one.
A picture for which no usable answer comes is left out of both and counted: nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from cldistill.component import BuildContext, Needs, RunOutline
from cldistill.data.items import open_picture
from cldistill.errors import EndpointError, NotMeasured, OptionsError, nearest
from cldistill.protocols import Metric, MetricRequest
from cldistill.records import Column, EffectInfo, MetricValues
from cldistill_plugins.endpoint.api import (
    SIDE,
    Address,
    ChatQuestion,
    Endpoint,
    EndpointSettings,
    NoUsableAnswerError,
    in_parallel,
    read_json,
)
from cldistill_plugins.evaluation.api import ValueStore

from .judge_prompts import CRITERIA, BadCase, Identity, ask_bad_case, ask_identity
from .references import reference_pairs

if TYPE_CHECKING:
    from PIL.Image import Image

HELP = "check the options of mllm-judge"
NO_JUDGE = "no judge was given: set `endpoint` and `model` in the options of mllm-judge"
NO_PAIRS = "no effect has pairs, and the judge is shown one"
BCR, VSA, REFUSED, REASON = "judge_bcr", "judge_vsa", "judge_refused", "judge_reason"
COLUMNS = {
    BCR: Column("bad cases, by the judge", "lower", percent=True),
    VSA: Column("VSA, by the judge", "higher"),
    REFUSED: Column("refused by the judge", "lower", percent=True),
}
F = TypeVar("F", bound=BaseModel)


class JudgeSettings(EndpointSettings):
    """Options of ``mllm-judge``; without an endpoint and a model it is not measured."""

    endpoint: Address | None = Field(None, description="base address of an OpenAI-compatible API")  # type: ignore[assignment]
    model: str | None = Field(None, description="name of the model there")  # type: ignore[assignment]
    criteria: Mapping[str, str] = Field(default_factory=dict, description="effect -> expert criteria of its own")
    default_criteria: str = Field(CRITERIA, min_length=1, description="criteria of every other effect")
    side: int = Field(SIDE, ge=64, description="longest side of the pictures as they are sent")


def describe_judge(settings: JudgeSettings, outline: RunOutline) -> Needs:
    """Needs an endpoint, of which only asking can tell whether it answers, and an effect with pairs."""
    effects = () if outline.manifest is None else outline.manifest.effects
    if not (settings.endpoint and settings.model):
        return Needs(lacks=NO_JUDGE)
    return Needs(lacks=NO_PAIRS if effects and all(effect.pairs is None for effect in effects) else None)


def build_judge(settings: JudgeSettings, context: BuildContext) -> Metric:
    """Return the judge; answers are kept in ``context.cache/answers.sqlite``.

    Raises:
        NotMeasured: no endpoint or no model was given.
    """
    if not (settings.endpoint and settings.model):
        raise NotMeasured(NO_JUDGE)
    names = [effect.name for effect in context.effects]
    for name in settings.criteria:
        if names and name not in names:
            raise OptionsError(f"criteria.{name}: there is no effect {name!r}{nearest(name, names)}")
    return Judge(settings, Endpoint.of(settings, HELP), ValueStore(context.cache / "answers.sqlite"))


@dataclass(frozen=True)
class Case:
    """One output that is to be judged."""

    system: str
    effect: EffectInfo
    index: int


@dataclass(frozen=True)
class Verdict:
    """The judge's decision on one case: both stages' answers, of which BCR and VSA are computed."""

    bad: bool | None = None
    """None: stage 1 has no answer."""
    identity: int | None = None
    """None: a bad case, or stage 2 has no answer."""
    reason: str | None = None
    refused: bool = False

    @property
    def bcr(self) -> float:
        """1 for a bad case, 0 for a good one."""
        return math.nan if self.bad is None else float(self.bad)

    @property
    def vsa(self) -> float:
        """0 for a bad case, else the identity's score."""
        return 0.0 if self.bad else float(self.identity) if self.identity is not None else math.nan


@dataclass(frozen=True)
class Judge:
    """Implements `cldistill.protocols.Metric`.  ``endpoint`` may be replaced by tests."""

    settings: JudgeSettings
    endpoint: Endpoint
    answers: ValueStore
    version: ClassVar[str] = "1"
    columns: ClassVar[Mapping[str, Column]] = COLUMNS
    cached_by: ClassVar[Literal["itself"]] = "itself"
    """Answers are kept one by one; a refused one is asked for again by the next evaluation."""

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Judge every system on every effect that has pairs.

        Raises:
            NotMeasured: no effect has pairs, or the endpoint fails; what was answered until then is kept.
        """
        references = {effect.name: _reference(effect) for effect in request.effects if reference_pairs(effect, 1)}
        cases = list(_cases(request, set(references)))
        if not references:
            raise NotMeasured(NO_PAIRS)
        verdicts: dict[Case, Verdict] = {}
        try:
            made = in_parallel(
                cases, lambda c: self._judge(request, c, references[c.effect.name]), self.settings.concurrency
            )
            for case, verdict in made:
                verdicts[case] = verdict
                request.advance(len(verdicts) / len(cases))
        except EndpointError as error:
            raise NotMeasured(f"{error} ({len(verdicts)} of {len(cases)} judged; their answers are kept)") from error
        return _values(verdicts)

    def _judge(self, request: MetricRequest, case: Case, reference: tuple[Image, Image]) -> Verdict:
        item = request.items[case.effect.name][case.index]
        test = (open_picture(item.sources[0]), request.outputs[case.system][case.effect.name][case.index])
        criteria = self.settings.criteria.get(case.effect.name, self.settings.default_criteria)
        about = f"{case.system}, {case.effect.name}, {item.key}"
        first = self._ask(ask_bad_case(item.prompt, criteria, reference, test, self.settings.side), BadCase, about)
        if first is None:
            return Verdict(refused=True)
        if first.is_bad_case:
            return Verdict(bad=True, reason=first.reason)
        second = self._ask(ask_identity(item.prompt, test, self.settings.side), Identity, about)
        score = second.score if second is not None else None
        return Verdict(bad=False, identity=score, reason=first.reason, refused=second is None)

    def _ask(self, question: ChatQuestion, form: type[F], about: str) -> F | None:
        """Return the kept answer, or ask; None where no usable one comes.  Raises EndpointError."""
        key = question.key("judge", self.endpoint.model, self.endpoint.temperature)
        known = self.answers.find(key)
        if known is not None:
            try:
                return form.model_validate(known)
            except ValidationError:
                pass  # kept by a version that asked in another form: ask again
        try:
            answer = self.endpoint.ask(question.messages(), lambda text: read_json(text, form), about)
        except NoUsableAnswerError:
            return None
        self.answers.keep({key: answer.model_dump()})
        return answer


def _reference(effect: EffectInfo) -> tuple[Image, Image]:
    (pair,) = reference_pairs(effect, 1)
    assert pair.target is not None, "reference pairs are complete"
    return open_picture(pair.sources[0]), open_picture(pair.target)


def _cases(request: MetricRequest, effects: set[str]) -> Iterator[Case]:
    for system, pools in request.outputs.items():
        for effect in request.effects:
            if effect.name in effects and effect.name in pools:
                yield from (Case(system, effect, index) for index in range(len(pools[effect.name])))


def _values(verdicts: Mapping[Case, Verdict]) -> dict[str, dict[str, MetricValues]]:
    """Sort verdicts into systems and effects; they came in no fixed order."""
    rows: dict[str, dict[str, dict[int, Verdict]]] = {}
    for case, verdict in verdicts.items():
        rows.setdefault(case.system, {}).setdefault(case.effect.name, {})[case.index] = verdict
    return {
        system: {effect: _row([found[index] for index in sorted(found)]) for effect, found in effects.items()}
        for system, effects in rows.items()
    }


def _row(verdicts: list[Verdict]) -> MetricValues:
    return MetricValues(
        per_picture={
            BCR: [verdict.bcr for verdict in verdicts],
            VSA: [verdict.vsa for verdict in verdicts],
            REFUSED: [float(verdict.refused) for verdict in verdicts],
        },
        tags={REASON: [verdict.reason for verdict in verdicts]},
    )
