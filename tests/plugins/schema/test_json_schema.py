"""The JSON schema that editors use: every shipped recipe is valid by it, and what extends a recipe may be partial."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator as Validator

from cldistill.catalogue import load_catalogue
from cldistill.manifest.load import recipes
from cldistill.manifest.yaml import parse
from cldistill_plugins.schema.json_schema import manifest_schema


@pytest.fixture(scope="module")
def validator() -> Validator:
    """The schema of everything that is installed, which is itself a valid one."""
    schema = manifest_schema(load_catalogue())
    Validator.check_schema(schema)
    return Validator(schema)


def problems(validator: Validator, manifest: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


def recipe(name: str) -> dict[str, Any]:
    text = files("cldistill_registry").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    plain: dict[str, Any] = parse(text, name, Path.cwd()).plain()
    return plain


@pytest.mark.slow
@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_valid(validator: Validator, name: str) -> None:
    assert problems(validator, recipe(name)) == []


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
    assert problems(validator, manifest)


def test_what_extends_another_need_not_repeat_it(validator: Validator) -> None:
    partial = {
        "extends": "one-effect", "general": {"instructions": "mine.jsonl"}, "base": {"options": {"resolution": 512}},
        "samples": {"every": 5}, "evaluate": {"pictures": 8}, "router": {"options": {"p_switch": 1.0}},
    }  # fmt: skip
    assert problems(validator, partial) == []
    assert problems(validator, {"extends": "one-effect", "slots": {"critic": None}}) == [], (
        "takes an inherited slot out"
    )
    assert problems(validator, recipe("one-effect") | {"slots": {"student": {}, "critic": None}})
    del partial["extends"]
    found = problems(validator, partial)
    for missing in (
        "$: 'effects'",
        "$.general: 'images'",
        "$.base: 'use'",
        "$.samples: 'images'",
        "$.evaluate: 'images'",
    ):
        assert f"{missing} is a required property" in found
    assert problems(validator, {"extends": "one-effect", "losses": [{"weight": 0.5}]}), (
        "a list replaces, entry by entry"
    )
