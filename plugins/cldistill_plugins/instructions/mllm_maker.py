"""General instructions by a vision-language model that looks at each picture (paper: 20 K pictures, an MLLM's instructions).

The category is drawn before the model is asked; a hint, drawn too, keeps one picture's instructions apart.  Answers are
kept under the content that they depend on, so that a file made again, or elsewhere, asks for nothing twice.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from cldistill.data.items import open_picture
from cldistill_plugins.endpoint.api import ChatQuestion, Endpoint, EndpointSettings, NoUsableAnswerError, read_json
from cldistill_plugins.evaluation.api import ValueStore
from cldistill_plugins.instructions.request import InstructionRequest

LONGEST = 400
"""Characters of a usable instruction."""
HELP = "check --set, or use --maker templates, which needs no endpoint"
INSTRUCTIONS = """\
You write training instructions for an image-editing model. You see one picture; write one instruction that somebody \
could give for it.
- It must fit what is in this very picture, be possible to carry out, and change something that can be seen.
- English, one sentence in the imperative, no quotation marks, no explanation.
- Answer with a JSON object and nothing else: {"instruction": "..."}"""
KINDS = {
    "add": "The instruction adds something that is not there: an object, an animal, a person, text, weather.",
    "remove": "The instruction removes something that is there, and says what.",
    "adjust": "The instruction adjusts what is there: colour, light, material, size, pose, season, time of day, background.",
    "style": "The instruction gives the whole picture another style: a technique, an art movement, a medium, a film look.",
}
HINTS = (
    "Think of the main subject.", "Think of the background.", "Think of the foreground.", "Think of the light.",
    "Think of the colours.", "Think of a small detail.", "Think of the mood.", "Think of something that nobody expects.",
)  # fmt: skip


def _one_line(text: str) -> str:
    line = " ".join(text.split()).strip("\"'“”‘’`* ")
    if not 3 <= len(line) <= LONGEST:
        raise ValueError(f"must have 3 to {LONGEST} characters")
    return line


class Written(BaseModel):
    """The form of an answer."""

    model_config = ConfigDict(extra="forbid")
    instruction: Annotated[str, AfterValidator(_one_line)]


class MllmSettings(EndpointSettings):
    """Options of ``mllm``."""


def make_mllm(settings: MllmSettings, cache: Path) -> MllmMaker:
    """Return the maker; answers are kept in ``cache/answers.sqlite``."""
    return MllmMaker(Endpoint.of(settings, HELP), ValueStore(cache / "answers.sqlite"), settings.concurrency)


@dataclass(frozen=True)
class MllmMaker:
    """The maker ``mllm`` of the command ``instructions``."""

    endpoint: Endpoint
    answers: ValueStore
    concurrency: int

    @property
    def identity(self) -> str:
        """Model, temperature and wordings; the address is no part of it, the same model may move."""
        return ChatQuestion(INSTRUCTIONS, [*KINDS.values(), *HINTS]).key(self.endpoint.model, self.endpoint.temperature)

    def instruction(self, request: InstructionRequest) -> str | None:
        """Return what the model writes, None where it refuses or its answers cannot be read.  Raises `EndpointError`."""
        hint = random.Random(request.seed).choice(HINTS)
        question = ChatQuestion(INSTRUCTIONS, [f"{KINDS[request.category]} {hint}", open_picture(request.picture)])
        key = question.key("instruction", self.endpoint.model, self.endpoint.temperature)
        known = self.answers.find(key)
        if known is not None:
            return str(known)
        try:
            written = self.endpoint.ask(
                question.messages(), lambda answer: read_json(answer, Written).instruction, request.picture.name
            )
        except NoUsableAnswerError:
            return None
        self.answers.keep({key: written})
        return written
