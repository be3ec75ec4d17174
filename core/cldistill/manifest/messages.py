"""Mistakes of a manifest, told to people as ``file:line: key.path: what is wrong (value); did you mean 'x'?``."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cldistill.errors import CldistillError, nearest, readable
from cldistill.manifest.yaml import Loc, Value, dotted, locate


class BadData(NamedTuple):
    """Data that does not fit its model: what pydantic found, which `describe_errors` retells."""

    error: ValidationError
    model: type[BaseModel]


Problem = tuple[Loc, str | BadData]
"""A key path and what is wrong there; file and line come in when it is told (`tell`)."""


class Problems(Exception):  # noqa: N818 (people never see it: `tell` makes an ``error`` of it)
    """All that one phase of the check found wrong; the next phase would not make sense any more."""

    def __init__(self, error: type[CldistillError], found: Sequence[Problem], more: Sequence[str] = ()) -> None:
        super().__init__(found)
        self.error, self.found, self.more = error, found, more


def tell(problems: Problems, tree: Value) -> str:
    """Return one line per mistake, each with file, line and key path."""
    lines = []
    for loc, what in problems.found:
        if isinstance(what, BadData):
            lines.append(describe_errors(*what, tree, loc))
        else:
            lines.append(f"{locate(tree, loc)[0].at}: {dotted(loc)}: {what}")
    return "\n".join([*lines, *problems.more])


def first_problem(error: ValidationError, whole: str = "the file") -> str:
    """Return pydantic's first complaint about stored data: the key, or ``whole``, and what is wrong there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return readable(f"{'.'.join(map(str, found['loc'])) or whole}: {found['msg']}").replace("\n", " ")


def describe_errors(error: ValidationError, model: type[BaseModel], tree: Value, prefix: Loc = ()) -> str:
    """Return one line per mistake. ``prefix`` is the key path of ``model`` within ``tree``."""
    lines: dict[Loc, tuple[str, list[str]]] = {}
    for details in error.errors(include_url=False):
        loc, place, text = _describe(details, model, tree, prefix)
        lines.setdefault(loc, (place, []))[1].append(text)
    # A list whose entries are wrong is also "too short", and a union also "no number": only the inner mistake helps.
    inner = [loc for loc in lines if not any(other[: len(loc)] == loc and other != loc for other in lines)]
    # The members of a union may each have something to say of one value.
    texts = {loc: " or ".join(dict.fromkeys(lines[loc][1])) for loc in inner}
    return "\n".join(f"{lines[loc][0]}: {dotted(loc) or 'manifest'}: {text}" for loc, text in texts.items())


def show(value: object) -> str:
    """Return a value as it appears in an error, shortened."""
    text = readable(repr(str(value)) if isinstance(value, str) else repr(value))  # before a cut could halve a secret
    return text if len(text) <= 80 else text[:77] + "..."


def _describe(details: ErrorDetails, model: type[BaseModel], tree: Value, prefix: Loc) -> tuple[Loc, str, str]:
    kind, raw, given = details["type"], details["loc"], details["input"]
    if unknown := kind == "extra_forbidden":
        message, name, valid = "unknown key", str(raw[-1]), known_keys(model, raw[:-1])
        valid |= {f"{key}.{name}" for key in valid if name in known_keys(model, (*raw[:-1], key))}  # or further in
    else:
        message, name = _message(details), str(given)
        valid = set(re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", ""))))
    value, loc = locate(tree, (*prefix, *raw))
    if loc[: len(prefix)] != prefix:
        loc = prefix  # nothing of the part was written
    if kind == "missing":
        return (*loc, raw[-1]), str(value.at), "is missing"
    at = value.key_at or value.at if unknown else value.at
    hint = nearest(name, valid) if unknown or isinstance(given, str) else ""
    return loc, str(at), f"{message} ({show(given)}){hint}"


def _message(details: ErrorDetails) -> str:
    kind, text = details["type"], details["msg"]
    if kind == "too_short":
        return "must not be empty"
    if kind == "value_error":
        return str(details.get("ctx", {}).get("error", text))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a map of keys to values"
    if kind in ("tuple_type", "list_type"):
        return "must be a list"
    if kind == "string_pattern_mismatch":
        return f"must match {details.get('ctx', {}).get('pattern')}"
    return text.replace("Input should be", "must be").replace("String should", "must")


def known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> set[str]:
    """Return the keys that the map at ``loc`` inside ``model`` may have."""
    found: list[Any] = [model]
    for part in loc:
        inner = [annotation for current in found for annotation in _inside(current, part)]
        found = inner or found  # a union's tag leads nowhere: stay
    return {key for annotation in found for member in _models(annotation) for key in _fields(member)}


def _fields(model: type[BaseModel]) -> Mapping[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for alternative in _alternatives(annotation):
        if isinstance(alternative, type) and issubclass(alternative, BaseModel):
            yield alternative


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    for model in _models(annotation):
        if part in _fields(model):
            yield _fields(model)[str(part)]
    for alternative in _alternatives(annotation):
        origin, arguments = get_origin(alternative), get_args(alternative)
        if isinstance(part, int) and origin in (list, tuple):
            yield arguments[0]
        if isinstance(part, str) and origin is dict:
            yield arguments[1]
