"""The JSON schema that editors use: every shipped recipe is valid by it, and what extends a recipe may be partial."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cldistill.catalogue import load_catalogue
from cldistill.manifest_file import recipes
from cldistill.manifest_yaml import parse
from cldistill.schema import Schema, manifest_schema

TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip
BOUNDS: dict[str, tuple[Any, Any, Any]] = {
    "minimum": ((int, float), float, operator.ge), "exclusiveMinimum": ((int, float), float, operator.gt),
    "maximum": ((int, float), float, operator.le), "exclusiveMaximum": ((int, float), float, operator.lt),
    "minLength": (str, len, operator.ge), "minItems": (list, len, operator.ge), "maxItems": (list, len, operator.le),
    "minProperties": (dict, len, operator.ge),
}  # fmt: skip
NOTES = {"$schema", "$defs", "title", "description", "default", "format", "then"}


class Validator:
    """As much of JSON schema (draft 2020-12) as pydantic writes; a keyword that it does not know is a failed test."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema

    def problems(self, value: Any) -> list[str]:
        """Return what is wrong with a manifest."""
        return list(self._check(self.schema, value, "manifest"))

    def _check(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        for word, given in schema.items():
            if word in NOTES:
                continue
            if word in BOUNDS:
                kind, size, holds = BOUNDS[word]
                if isinstance(value, kind) and not holds(size(value), given):
                    yield f"{at}: {value!r} is out of bounds ({word} {given})"
                continue
            check = getattr(self, "_" + re.sub("([A-Z])", r"_\1", word.lstrip("$")).lower(), None)
            assert check is not None, f"the test does not know the keyword {word!r}"
            yield from check(given, value, at, schema)

    def _holds(self, schema: Schema, value: Any, at: str) -> bool:
        return next(self._check(schema, value, at), None) is None

    def _ref(self, given: str, value: Any, at: str, schema: Schema) -> Iterator[str]:
        yield from self._check(self.schema["$defs"][given.removeprefix("#/$defs/")], value, at)

    def _type(self, given: str, value: Any, at: str, schema: Schema) -> Iterator[str]:
        odd = isinstance(value, bool) and given in ("integer", "number")
        if odd or not isinstance(value, TYPES[given]):
            yield f"{at}: {value!r} is no {given}"

    def _properties(self, given: Schema, value: Any, at: str, schema: Schema) -> Iterator[str]:
        for key in given.keys() & value if isinstance(value, dict) else ():
            yield from self._check(given[key], value[key], f"{at}.{key}")

    def _pattern_properties(self, given: Schema, value: Any, at: str, schema: Schema) -> Iterator[str]:
        for pattern, inner in given.items():
            for key in value:
                if re.search(pattern, key):
                    yield from self._check(inner, value[key], f"{at}.{key}")

    def _additional_properties(self, given: Any, value: Any, at: str, schema: Schema) -> Iterator[str]:
        extra = value.keys() - schema.get("properties", {}) if isinstance(value, dict) else ()
        for key in extra:
            if given is False:
                yield f"{at}: {key!r} is unknown"
            elif isinstance(given, dict):
                yield from self._check(given, value[key], f"{at}.{key}")

    def _required(self, given: list[str], value: Any, at: str, schema: Schema) -> Iterator[str]:
        for key in given if isinstance(value, dict) else ():
            if key not in value:
                yield f"{at}: {key!r} is missing"

    def _items(self, given: Schema, value: Any, at: str, schema: Schema) -> Iterator[str]:
        for index, entry in enumerate(value if isinstance(value, list) else ()):
            yield from self._check(given, entry, f"{at}.{index}")

    def _prefix_items(self, given: list[Schema], value: Any, at: str, schema: Schema) -> Iterator[str]:
        for index, (inner, entry) in enumerate(zip(given, value, strict=False)):
            yield from self._check(inner, entry, f"{at}.{index}")

    def _any_of(self, given: list[Schema], value: Any, at: str, schema: Schema) -> Iterator[str]:
        found = [list(self._check(choice, value, at)) for choice in given]
        if all(found):
            yield f"{at}: none of {len(given)} choices: {found}"

    def _all_of(self, given: list[Schema], value: Any, at: str, schema: Schema) -> Iterator[str]:
        for inner in given:
            yield from self._check(inner, value, at)

    def _not(self, given: Schema, value: Any, at: str, schema: Schema) -> Iterator[str]:
        if self._holds(given, value, at):
            yield f"{at}: must not be so"

    def _if(self, given: Schema, value: Any, at: str, schema: Schema) -> Iterator[str]:
        if self._holds(given, value, at):
            yield from self._check(schema["then"], value, at)

    def _const(self, given: Any, value: Any, at: str, schema: Schema) -> Iterator[str]:
        if value != given:
            yield f"{at}: {value!r} is not {given!r}"

    def _enum(self, given: list[Any], value: Any, at: str, schema: Schema) -> Iterator[str]:
        if value not in given:
            yield f"{at}: {value!r} is none of {given}"

    def _pattern(self, given: str, value: Any, at: str, schema: Schema) -> Iterator[str]:
        if isinstance(value, str) and not re.search(given, value):
            yield f"{at}: {value!r} does not match {given}"


@pytest.fixture(scope="module")
def validator() -> Validator:
    """The schema of everything that is installed."""
    return Validator(manifest_schema(load_catalogue()))


def recipe(name: str) -> dict[str, Any]:
    text = files("cldistill_registry").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    plain: dict[str, Any] = parse(text, name, Path.cwd()).plain()
    return plain


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_valid(validator: Validator, name: str) -> None:
    assert validator.problems(recipe(name)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("losses.0.options", {"tau_mx": 1}), ("losses.0.use", "bs-dmt"), ("losses.0", {"weight": 1}), ("base", {}),
        ("slots.student.rank", 0), ("router.options.p_switch", 2), ("general", {"images": "x"}), ("samples", {}),
        ("effects", []), ("name", "two words"), ("sampler.stepss", 8), ("effects.0.teacher", {"options": {}}),
        ("targets.from", "nowhere"), ("slots.student.lr", [{"from_step": 1}]), ("evaluate", {"pictures": 3}),
    ],
)  # fmt: skip
def test_what_check_would_refuse_is_marked_in_the_editor(validator: Validator, path: str, value: Any) -> None:
    manifest: Any = recipe("one-effect")
    *parents, last = path.split(".")
    inner = manifest
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    inner[int(last) if last.isdigit() else last] = value
    assert validator.problems(manifest)


def test_what_extends_another_need_not_repeat_it(validator: Validator) -> None:
    partial = {
        "extends": "one-effect", "general": {"instructions": "mine.jsonl"}, "base": {"options": {"resolution": 512}},
        "samples": {"every": 5}, "evaluate": {"pictures": 8}, "router": {"options": {"p_switch": 1.0}},
    }  # fmt: skip
    assert validator.problems(partial) == []
    assert validator.problems({"extends": "one-effect", "slots": {"critic": None}}) == [], "takes an inherited slot out"
    assert validator.problems(recipe("one-effect") | {"slots": {"student": {}, "critic": None}})
    del partial["extends"]
    found = validator.problems(partial)
    for key in ("manifest: 'effects'", "general: 'images'", "base: 'use'", "samples: 'images'", "evaluate: 'images'"):
        assert any(key in text and text.endswith("is missing") for text in found), key
    assert validator.problems({"extends": "one-effect", "losses": [{"weight": 0.5}]}), "a list replaces, entry by entry"
