"""The state that a part holds between two calls, read from its attributes, closures, classes and module's globals."""

from __future__ import annotations

import functools
import inspect
import random
from hashlib import blake2b
from itertools import count
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = (str, bytes, int, float, complex, bool, type(None))
LIBRARIES = ("builtins", "torch", "numpy", "pydantic", "cldistill")
"""Packages whose classes and modules keep nothing of a part's."""


def held_state(part: object) -> dict[str, str]:
    """Return what a part remembers: where it is kept -> its value as text.

    Equal before and after a repeated call unless that call left something behind.  A cache that is filled once is
    settled by the time of the repetition.
    """
    found: dict[str, str] = {}
    _walk(part, type(part).__name__, found, set())
    return found


def changed_state(before: dict[str, str], after: dict[str, str]) -> str | None:
    """Return the place at which two states differ, None if they are equal."""
    differ = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return differ[0] if differ else None


def _walk(value: object, path: str, found: dict[str, str], seen: set[int]) -> None:
    text = _value(value)
    if text is not None:
        found[path] = text
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for name, inner in _inner(value):
        _walk(inner, f"{path}{name}", found, seen)


def _value(value: object) -> str | None:
    """Return a leaf as text, None where there is more inside."""
    if isinstance(value, (*PLAIN, count)):
        return repr(value)
    if isinstance(value, Tensor):
        return _digest(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray):
        return _digest(value.tobytes())
    if isinstance(value, torch.Generator):
        return _digest(value.get_state().numpy().tobytes())
    if isinstance(value, random.Random):
        return _digest(repr(value.getstate()).encode())
    if isinstance(value, np.random.Generator):
        return _digest(repr(value.bit_generator.state).encode())
    return None


def _inner(value: object) -> list[tuple[str, object]]:
    """Return what an object consists of, each with the end of its path."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", inner) for key, inner in value.items()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)] + [(" (length)", len(value))]
    if isinstance(value, MethodType):
        return [("", value.__self__), ("", value.__func__)]
    if isinstance(value, functools.partial):
        return [("", value.func), (" (arguments)", value.args), (" (keywords)", value.keywords)]
    if isinstance(value, FunctionType):
        return _of_function(value)
    if isinstance(value, type):
        return _of_class(value)
    if isinstance(value, ModuleType) or inspect.isroutine(value):
        return []
    attributes = {**getattr(value, "__dict__", {}), **_slots(value)}
    return [(f".{name}", inner) for name, inner in attributes.items()] + [(" (class)", type(value))]


def _of_class(kind: type) -> list[tuple[str, object]]:
    """Return attributes and methods of a class of the part's own, and its bases."""
    if kind.__module__.partition(".")[0] in LIBRARIES:
        return []
    own = {name: value for name, value in vars(kind).items() if not name.startswith("__") or name == "__call__"}
    return [(f".{name}", value) for name, value in own.items()] + [(" (base)", base) for base in kind.__bases__]


def _of_function(function: FunctionType) -> list[tuple[str, object]]:
    """Return closure, attributes, defaults, and the globals that its code names."""
    closure = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    inner: list[tuple[str, object]] = [(f" (closure {name})", value) for name, value in closure.items()]
    inner += [(f" (default {index})", value) for index, value in enumerate(function.__defaults__ or ())]
    inner += [(f".{name}", value) for name, value in vars(function).items()]
    if function.__module__.partition(".")[0] not in LIBRARIES:
        used = [name for name in _names(function.__code__) if name in function.__globals__]
        inner += [(f" (global {name})", function.__globals__[name]) for name in used]
    return inner


def _names(code: CodeType) -> list[str]:
    """Return the names that code uses, with those of the functions inside it."""
    inside = [name for inner in code.co_consts if isinstance(inner, CodeType) for name in _names(inner)]
    return [*code.co_names, *inside]


def _slots(value: object) -> dict[str, Any]:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if isinstance(name, str)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
