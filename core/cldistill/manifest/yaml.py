"""YAML to a tree that remembers where every key and value was written.

The scalars follow the YAML 1.2 core schema, so ``1e-4`` is a number and ``no`` is the word "no" (PyYAML's own 1.1 rules
read a string and False).  Duplicate keys are errors.  What a stranger's file may cost is bounded: its length, its depth, and
what its aliases spell out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import yaml

from cldistill.errors import ManifestError

LARGEST, DEEPEST, MOST_DIGITS = 2_000_000, 100, 400
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters and halves of characters, which reach no path, name or terminal."""
HASH = re.compile(r"^[ -]*prompt: +[^'\"|>#{\[\s][^#\n]* #\w", re.MULTILINE)
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

    ManifestError for a syntax error, a duplicate key, a key that is no text, a tag, or more than `LARGEST` or `DEEPEST`.
    """

    def place(line: int) -> Place:
        return Place(file, line + 1 if lined else 0, root)

    if len(text) > LARGEST:
        raise ManifestError(f"{file}: has {len(text)} letters, and a manifest may have {LARGEST}")
    if found := UNPRINTABLE.search(text):
        at = place(text.count("\n", 0, found.start()))
        raise ManifestError(f"{at}: a character that no text has (U+{ord(found[0]):04X}): delete it, or save as UTF-8")
    if found := HASH.search(text):
        at = place(text.count("\n", 0, found.end()))
        raise ManifestError(
            f"{at}: prompt: ' #' begins a comment, and the prompt ends before it: put quotes around the text"
        )
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                mark = event.start_mark
                raise ManifestError(
                    f"{place(mark.line) if mark else file}: lies more than {DEEPEST} lists and maps deep"
                )
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = place(mark.line) if mark is not None else Place(file, 0, root)
        raise ManifestError(f"{at}: {_mistake(text, error)}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise ManifestError(f"{file}: not valid YAML: {error}") from error
    if node is None:
        return Value({}, place(0))
    _size(node, place, {})
    return _convert(node, place)


def _mistake(text: str, error: yaml.MarkedYAMLError) -> str:
    """Tell a syntax error in the words of the habit behind it, where it is a known one."""
    mark, problem = error.problem_mark or error.context_mark, str(error.problem or error.context)
    line, column = "", 0
    if mark is not None and mark.line <= text.count("\n"):
        line, column = text.split("\n")[mark.line], mark.column
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "a tab indents this line: YAML indents by spaces alone"
    if "mapping values are not allowed" in problem:
        return "a text with ': ' in it needs quotes around it, and a key the indentation of its neighbours"
    if "escape" in problem or "hexdecimal" in problem:
        return "a backslash in double quotes begins an escape: write the path with / or in single quotes"
    if "cannot start any token" in problem:
        return f"a text that begins with {line[column : column + 1]!r} needs quotes around it"
    return f"not valid YAML: {problem}"


def _size(node: yaml.Node, place: Callable[[int], Place], sizes: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return letters (at least 8 a value) and depth of what a node holds with every alias in it spelled out."""
    if id(node) not in sizes:
        sizes[id(node)] = LARGEST + 1, 0  # while it is under way: an alias of itself has no end
        inner = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
        parts = [(len(inner), -1)] if isinstance(inner, str) else [_size(one, place, sizes) for one in inner]
        sizes[id(node)] = 8 + sum(size for size, _ in parts), 1 + max((depth for _, depth in parts), default=0)
    if sizes[id(node)][0] > LARGEST or sizes[id(node)][1] > DEEPEST:
        raise ManifestError(f"{place(node.start_mark.line)}: is too large or deep, or its aliases contain themselves")
    return sizes[id(node)]


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _convert(node: yaml.Node, place: Callable[[int], Place]) -> Value:
    at = place(node.start_mark.line)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise ManifestError(f"{at}: tags such as {node.tag} are not used in manifests")
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key_at = place(key_node.start_mark.line)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ManifestError(f"{key_at}: a key must be a word")
            key = key_node.value
            if key == "<<":
                raise ManifestError(f"{key_at}: `<<:` merges nothing here: write the keys out, or use `extends:`")
            if key in members:
                raise ManifestError(f"{key_at}: {key}: this key was already given at {members[key].key_at}")
            members[key] = replace(_convert(value_node, place), key_at=key_at)
        return Value(members, at)
    if isinstance(node, yaml.SequenceNode):
        return Value([_convert(child, place) for child in node.value], at)
    return Value(_scalar(node, at), at)


def _scalar(node: yaml.Node, at: Place) -> Data:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), str(node.value)
    if kind == "str" and (found := UNPRINTABLE.search(text)):
        raise ManifestError(f"{at}: a text may not hold the character U+{ord(found[0]):04X}")
    if kind == "str" and re.match(r"[A-Za-z]:[\t\n]", text):
        raise ManifestError(
            f"{at}: a backslash in double quotes begins an escape: write the path with / or in single quotes"
        )
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        if kind == "int" and len(text) <= MOST_DIGITS:
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        if kind == "float":
            return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
    except ValueError:
        pass
    if kind in ("int", "float"):
        raise ManifestError(f"{at}: {text[:40]!r} is no number, or has too many digits")
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
