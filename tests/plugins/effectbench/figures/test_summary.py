"""Means over pairs and effects, and their shape in JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cldistill_plugins.effectbench.figures.summary import by_effect, mean_of_pairs, nested, over_effects

NAN = float("nan")


def test_pairs_are_averaged_where_they_have_a_value() -> None:
    found = mean_of_pairs([{"a": np.array([1.0, NAN, NAN])}, {"a": np.array([3.0, 5.0, NAN])}])
    assert found["a"].tolist() == pytest.approx([2.0, 5.0, NAN], nan_ok=True)


def test_effects_are_averaged_in_place() -> None:
    found = over_effects([{"x/y": np.array([[1.0, 2.0]])}, {"x/y": np.array([[3.0, NAN]])}])
    (row,) = found["x"]["y"]
    assert row[0]["mean"] == 2.0 and row[0]["n"] == 2
    assert 1.0 <= row[0]["low"] <= 2.0 <= row[0]["high"] <= 3.0
    assert row[1] == {"mean": 2.0, "low": None, "high": None, "n": 1}


def test_what_has_no_value_anywhere_is_null() -> None:
    found = over_effects([{"x": np.array([NAN])}] * 2)
    assert json.loads(json.dumps(found, allow_nan=False)) == {"x": [{"mean": None, "low": None, "high": None, "n": 0}]}


def test_each_effect_keeps_its_values() -> None:
    found = by_effect(["a", "b"], [{"p/q": np.array([1.0])}, {"p/q": np.array([NAN])}])
    assert found == {"p": {"q": {"a": [1.0], "b": [None]}}}


def test_names_are_nested_at_their_slashes() -> None:
    assert nested({"a/b/c": 1, "a/d": 2, "e": 3}) == {"a": {"b": {"c": 1}, "d": 2}, "e": 3}
