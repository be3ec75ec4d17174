"""The answer of an OpenAI-compatible server: its text, a refusal, or nothing that can be used."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cldistill.manifest.messages import first_problem
from cldistill.storage.untrusted import parse_json

M = TypeVar("M", bound=BaseModel)
FILTERS = ("content_filter", "content_policy_violation", "moderation_blocked")
"""Codes with which servers say that they will not have this question answered."""
_THOUGHTS = re.compile(r"<think>.*?</think>", flags=re.DOTALL)
_FENCE = re.compile(r"```[\w-]*\s*\n(.*?)\n?\s*```", flags=re.DOTALL)


class MalformedAnswerError(Exception):
    """The answer came, but cannot be used; asked again, the model may do better."""


class RefusedAnswerError(MalformedAnswerError):
    """The model, or a filter before it, declines to answer; asked again, it would decline again."""


def text_of(body: bytes) -> str:
    """Return the text of a completion's first choice; it may come in parts.

    Raises:
        RefusedAnswerError: the choice says that the model declined, or that a filter cut it off.
        MalformedAnswerError: the body is no chat completion, or holds no text.
    """
    try:
        choice = parse_json(body)["choices"][0]
        message = choice["message"]
        content = message.get("content")
        refusal = message.get("refusal")
        filtered = choice.get("finish_reason") == "content_filter"
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise MalformedAnswerError("the answer is no chat completion") from None
    if refusal or filtered:
        raise RefusedAnswerError("the model declined to answer")
    if not isinstance(content, str):
        raise MalformedAnswerError("the answer holds no text")
    return content


def is_refusal(body: bytes) -> bool:
    """Return whether the body of an error says, by its code, that a filter refused the question."""
    try:
        error = parse_json(body)["error"]
        return any(error.get(member) in FILTERS for member in ("code", "type"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def without_thoughts(answer: str) -> str:
    """Return an answer without a reasoning model's ``<think>…</think>``."""
    return _THOUGHTS.sub("", answer).strip()


def read_json(answer: str, form: type[M]) -> M:
    """Return the one JSON object that an answer is, in the form of a (strict) pydantic model.

    A code fence around the whole of it is taken off; text beside it is not.  Nothing is guessed.

    Raises:
        MalformedAnswerError: with what is wrong.
    """
    text = without_thoughts(answer)
    fenced = _FENCE.fullmatch(text)
    try:
        return form.model_validate_json(fenced[1] if fenced else text, strict=True)
    except ValidationError as error:
        raise MalformedAnswerError(f"the answer is not what was asked for ({first_problem(error, 'JSON')})") from None
