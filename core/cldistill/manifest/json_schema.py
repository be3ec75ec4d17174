"""A JSON schema of the manifest for editors, with the options of every installed component.

Editors complete and check as one types, with ``# yaml-language-server: $schema=cldistill.schema.json`` at the top of a
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cldistill.catalogue import Catalogue
from cldistill.component import KINDS, Kind
from cldistill.manifest.models import LossRef, Manifest, PartRef

Schema = dict[str, Any]


def manifest_schema(catalogue: Catalogue) -> Schema:
    """Return the JSON schema (draft 2020-12) of a manifest."""
    schema = Manifest.model_json_schema(by_alias=True)
    definitions: Schema = schema["$defs"]
    for kind in KINDS:
        definitions[kind] = _part(catalogue, kind, definitions)
    for key, kind in PARTS.items():
        schema["properties"][key] = _ref(kind)
    lists: tuple[tuple[Schema, str, Kind], ...] = (
        (schema, "losses", "loss_term"), (schema, "observers", "observer"), (definitions["Evaluate"], "metrics", "metric"),
    )  # fmt: skip
    for within, key, kind in lists:
        within["properties"][key] |= {"items": {**_ref(kind), "required": ["use"]}}
    teacher = {**_ref("teacher_source"), "required": ["use"]}
    definitions["Effect"]["properties"]["teacher"] = {"anyOf": [teacher, {"type": "null"}]}
    for unused in ("PartRef", "LossRef"):
        definitions.pop(unused, None)
    # A manifest that extends another need not repeat what that holds, neither at the top nor in a map within.
    inner: Schema = {key: {"required": names} for key, names in _required_within(schema["properties"], definitions)}
    # `slots: {critic: null}` takes an inherited slot out.
    (pattern,) = schema["properties"]["slots"]["patternProperties"]
    schema["properties"]["slots"]["patternProperties"][pattern] = {"anyOf": [_ref("Slot"), {"type": "null"}]}
    inner["slots"] = {"additionalProperties": {"type": "object"}}
    whole = {"required": schema.pop("required"), "properties": inner}
    schema["if"], schema["then"] = {"not": {"required": ["extends"]}}, whole
    schema["properties"]["extends"] = {
        "type": "string", "description": "Another manifest (a path or a shipped recipe) that this one is laid over.",
    }  # fmt: skip
    schema["properties"]["teacher"] = {**teacher, "description": "The teacher of every effect that names none."}
    file = {
        "type": "string",
        "description": "A YAML file with the list of effects; its paths start from its own folder.",
    }
    schema["properties"]["effects"] = {"anyOf": [schema["properties"]["effects"], file]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "cldistill manifest", **schema}


def schema_text(catalogue: Catalogue) -> str:
    """Return the schema as indented JSON."""
    return json.dumps(manifest_schema(catalogue), indent=2) + "\n"


PARTS: dict[str, Kind] = {"base": "base_model", "router": "stream_router", "prompts": "prompt_isolator"}
"""Key -> kind of the parts that stand alone."""


def _required_within(properties: Schema, definitions: Schema) -> Iterator[tuple[str, list[str]]]:
    """Take ``required`` out of the maps that `extends` merges, and yield it with the key that each map stands under.

    The entries of lists keep theirs: a list replaces the extended one's whole.
    """
    yield from ((key, ["use"]) for key in PARTS)
    for key, value in properties.items():
        for choice in (value, *value.get("anyOf", ())):
            definition = definitions.get(str(choice.get("$ref", "")).removeprefix("#/$defs/"), {})
            if key not in PARTS and "required" in definition:
                yield key, definition.pop("required")


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _part(catalogue: Catalogue, kind: Kind, definitions: Schema) -> Schema:
    """Return the schema of a part: the names of its kind, and the options that belong to each."""
    model = LossRef if kind == "loss_term" else PartRef
    own = model.model_json_schema(by_alias=True)
    offered = {entry.component.name: entry.component for entry in catalogue if entry.component.kind == kind}
    cases = [_case(kind, name, component.settings, definitions) for name, component in offered.items()]
    names = [{"const": name, "description": component.summary} for name, component in offered.items()]
    properties = {**own["properties"], "use": {"anyOf": names} if names else {"type": "string"}}
    return {
        "type": "object",
        "description": own.get("description", ""),
        "properties": properties,
        "additionalProperties": False,
        **({"allOf": cases} if cases else {}),  # an empty list would be no valid schema
    }


def _case(kind: Kind, name: str, settings: Any, definitions: Schema) -> Schema:
    prefix = f"{kind}.{name}."
    options = settings.model_json_schema(by_alias=True, ref_template=f"#/$defs/{prefix}{{model}}")
    for inner, definition in options.pop("$defs", {}).items():
        definitions[prefix + inner] = definition
    options.pop("required", None)  # a part may be merged from several files
    chosen = {"properties": {"use": {"const": name}}, "required": ["use"]}
    return {"if": chosen, "then": {"properties": {"options": options}}}
