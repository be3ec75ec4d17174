"""Prompts of the multimodal judge, and the forms in which it must answer, for ``mllm-judge`` (paper: EffectBench, BCR and VSA).

Stage 1 says whether an output is a bad case; stage 2, for good cases alone, how well the subject's identity is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from cldistill_plugins.endpoint.api import ChatQuestion

if TYPE_CHECKING:
    from PIL.Image import Image

CRITERIA = """\
Call it a bad case if any of these holds:
- Texture and detail loss: the effect's material, lines or texture are missing, smeared, blurred or broken.
- Style interference: the output shows another effect than the reference pair, or a mixture with another one.
- Generalisation collapse: the output is (nearly) the unedited input, shows the reference's subject instead of the input's, \
or no longer shows a recognisable picture.
Small differences in strength, colour or composition are no reason: the effect must be there, whole and clean."""
"""Expert criteria where an effect has none of its own: the paper's three families of failures (Figure 6)."""

STAGE_1 = """\
You are an expert who inspects outputs of an image-editing model that applies visual effects. You see the instruction, one \
reference pair (before and after) that shows what the effect looks like, and a test pair: the input and the model's output \
for it. Decide whether the output is a bad case: one in which the effect failed.
Judge by the criteria that you are given and by the reference pair. The test input shows another subject than the reference.
Answer with a JSON object and nothing else: {"is_bad_case": true or false, "reason": "one short sentence"}"""

STAGE_2 = """\
You are an expert who inspects outputs of an image-editing model that applies visual effects. You see the instruction, the \
input and the output. The effect itself has been found well done. Rate only how well the identity of the input's main \
subject is kept, allowing for every change that the effect asks for (material, texture, colours, style):
5: unmistakably the same individual: shape, features, pose and markings are kept.
4: the same individual with small deviations.
3: recognisable, but features or pose have clearly changed.
2: the same kind of subject, hardly the same individual.
1: another subject.
Answer with a JSON object and nothing else: {"score": an integer from 1 to 5, "reason": "one short sentence"}"""


class BadCase(BaseModel):
    """The form of an answer in stage 1."""

    model_config = ConfigDict(extra="forbid", strict=True)
    is_bad_case: bool
    reason: str


class Identity(BaseModel):
    """The form of an answer in stage 2."""

    model_config = ConfigDict(extra="forbid", strict=True)
    score: int = Field(ge=1, le=5)
    reason: str


def ask_bad_case(
    instruction: str, criteria: str, reference: tuple[Image, Image], test: tuple[Image, Image], side: int
) -> ChatQuestion:
    """Return the question of stage 1."""
    parts: list[str | Image] = [
        f"Instruction: {instruction}", f"Criteria: {criteria}",
        "Reference, before:", reference[0], "Reference, after:", reference[1],
        "Test, input:", test[0], "Test, output:", test[1],
    ]  # fmt: skip
    return ChatQuestion(STAGE_1, parts, side)


def ask_identity(instruction: str, test: tuple[Image, Image], side: int) -> ChatQuestion:
    """Return the question of stage 2."""
    return ChatQuestion(STAGE_2, [f"Instruction: {instruction}", "Input:", test[0], "Output:", test[1]], side)
