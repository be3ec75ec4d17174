"""YAML to a tree that remembers where every key and value was written.

The scalars follow the YAML 1.2 core schema, so ``1e-4`` is a number and ``no`` is the word "no" (PyYAML's own 1.1 rules
read a string and False).  Duplicate keys are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import yaml

from cldistill.errors import ManifestError

Loc = tuple[str | int, ...]
"""A key path: map keys and list indices."""


@dataclass(frozen=True)
class Place:
    """The place at which something was written. ``root`` is the folder that relative paths written there start from."""

    file: str
    line: int
    """1-based; 0 where there are no lines (``--set``)."""
    root: Path

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Text(str):
    """A string of a manifest that knows the folder its relative path would start from."""

    folder: Path

    def __new__(cls, value: str, folder: Path) -> Text:
        text = super().__new__(cls, value)
        text.folder = folder
        return text


Data = Union[str, int, float, bool, None, "dict[str, Value]", "list[Value]"]


@dataclass(frozen=True)
class Value:
    """One node: its data, where it begins, and where its key stands (for the members of a map)."""

    data: Data
    at: Place
    key_at: Place | None = None

    def plain(self) -> Any:
        """Return ordinary Python data; strings are `Text`."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return Text(self.data, self.at.root) if isinstance(self.data, str) else self.data


_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: ten times as fast."""


class _Loader(_Parser):  # type: ignore[misc]
    """SafeLoader's parser with the implicit types of YAML 1.2 alone."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own interface)


_TYPES = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
)
for _name, _pattern, _first in _TYPES:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)


def parse(text: str, file: str, root: Path, *, lined: bool = True) -> Value:
    """Parse one YAML document; ``lined=False`` for a text whose lines mean nothing to anybody.

    Raises:
        ManifestError: a syntax error, a duplicate key, a key that is no text, or a tag.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ManifestError(f"{file}{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ManifestError(f"{file}: not valid YAML: {error}") from error

    def place(line: int) -> Place:
        return Place(file, line + 1 if lined else 0, root)

    return Value({}, place(0)) if node is None else _convert(node, place, ())


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _convert(node: yaml.Node, place: Callable[[int], Place], above: tuple[int, ...]) -> Value:
    at = place(node.start_mark.line)
    if id(node) in above:
        raise ManifestError(f"{at}: this alias contains itself")
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise ManifestError(f"{at}: tags such as {node.tag} are not used in manifests")
    within = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key_at = place(key_node.start_mark.line)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ManifestError(f"{key_at}: a key must be a word")
            key = key_node.value
            if key in members:
                raise ManifestError(f"{key_at}: {key}: this key was already given at {members[key].key_at}")
            members[key] = replace(_convert(value_node, place, within), key_at=key_at)
        return Value(members, at)
    if isinstance(node, yaml.SequenceNode):
        return Value([_convert(child, place, within) for child in node.value], at)
    return Value(_scalar(node, at), at)


def _scalar(node: yaml.Node, at: Place) -> Data:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if kind == "float":
        return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    raise ManifestError(f"{at}: tags such as {node.tag} are not used in manifests ({text!r})")


def locate(tree: Value, loc: Loc) -> tuple[Value, Loc]:
    """Walk down as far as the tree goes: the deepest value met and its key path.

    Parts that the tree does not have are skipped: pydantic puts the tags of union members between the real ones.
    """
    path: list[str | int] = []
    for part in loc:
        inner: Value | None = None
        if isinstance(tree.data, dict) and isinstance(part, str):
            inner = tree.data.get(part)
        elif isinstance(tree.data, list) and isinstance(part, int) and part < len(tree.data):
            inner = tree.data[part]
        if inner is not None:
            tree = inner
            path.append(part)
    return tree, tuple(path)


def dotted(loc: Loc) -> str:
    """Return the key path as people write it: ``losses.1.options.tau_max``."""
    return ".".join(str(part) for part in loc)
