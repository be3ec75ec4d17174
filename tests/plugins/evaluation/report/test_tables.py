"""Figures and tables of the report."""

from __future__ import annotations

import pytest

from cldistill_plugins.evaluation.report.figures import ends_of, interval, number, text_of
from cldistill_plugins.evaluation.report.record import ComparisonEntry, Evaluation, IntervalEntry, MetricRow
from cldistill_plugins.evaluation.report.tables import (
    cell,
    comparison_rows,
    count_families,
    score_rows,
    summary_rows,
    verdict,
)

LOWER = MetricRow(title="distance", better="lower")
SHARE = MetricRow(title="bad cases", better="lower", percent=True)
REPORT = {
    "format": 1, "name": "x", "pictures": ["p", "q"],
    "effects": [{"name": "ink", "stochastic": True}, {"name": "grey", "stochastic": False}, {"name": "old"}],
    "systems": [{"name": "a", "title": "A"}, {"name": "b"}],
    "metrics": {
        "distance": {"title": "distance", "better": "lower"}, "clip": {"title": "CLIP", "better": "higher"},
        "energy": {"title": "energy"},
    },
    "summary": {
        "a": {m: {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 2} for m in ("distance", "clip", "energy")},
        "b": {m: {"mean": 0.4, "low": 0.3, "high": 0.5, "n": 2} for m in ("distance", "clip", "energy")},
    },
    "failures": {"b": {"ink": {"p": "style-interference", "q": "style-interference"}}},
    "comparisons": [
        {"a": "b", "b": "a", "metric": "distance", "effects": ["ink", "grey"], "mean": 0.2, "low": 0.1, "high": 0.3,
         "n": 4, "clear": True, "ratio": {"mean": 2.0, "low": 1.5, "high": None, "n": 4}},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.12345, False, "0.123"), (-0.5, False, "−0.500"), (-0.0001, False, "0.000"), (1234.56, False, "1234.6"),
        (0.125, True, "12.5 %"), (-0.0833, True, "−8.3 %"), (None, True, "–"),
    ],
)  # fmt: skip
def test_numbers_have_the_digits_they_deserve(value: float | None, percent: bool, text: str) -> None:
    assert number(value, percent) == text


def test_intervals() -> None:
    assert interval(-0.1, 0.25) == "[−0.100, 0.250]"
    assert interval(0.01, 0.02, percent=True) == "[1.0, 2.0]"
    assert interval(None, 0.2) == ""
    assert interval(1.5, None) == "[1.500, ∞]"
    assert text_of(IntervalEntry(mean=0.5, low=0.25, high=0.75), SHARE) == "50.0 % [25.0, 75.0]"
    assert text_of(None, SHARE) == "–"


def test_one_picture_has_no_interval_in_any_table() -> None:
    made, older = IntervalEntry(mean=0.5, n=1), IntervalEntry(mean=0.5, low=0.5, high=0.5, n=1)
    for found in (made, older):
        assert ends_of(found) == cell(found, LOWER).interval == "one picture: no interval"
        assert text_of(found, SHARE) == "50.0 % (one picture: no interval)"
    assert ends_of(IntervalEntry(mean=0.5, low=0.5, high=0.5, n=2)) == "[0.500, 0.500]"
    assert ends_of(IntervalEntry(mean=0.5)) == ""  # of a whole set
    told = {**REPORT["comparisons"][0], "low": 0.2, "high": 0.2, "n": 1}  # type: ignore[index]
    row = comparison_rows(Evaluation.model_validate({**REPORT, "comparisons": [told]}))[0]
    assert (row.difference.interval, row.clear, row.verdict) == (ends_of(made), False, "no clear difference")


def test_the_best_of_a_column_depends_on_its_direction() -> None:
    best = {row.system.name: [name for name, cell in row.cells.items() if cell.best] for row in summary_rows(report())}
    assert best == {"a": ["distance"], "b": ["clip"]}


def test_all_that_read_like_the_best_are_marked() -> None:
    means = {"a": 0.2001, "b": 0.1999, "c": 0.2006}
    changed = {name: {"distance": {"mean": mean}} for name, mean in means.items()}
    found = Evaluation.model_validate({**REPORT, "systems": [{"name": name} for name in means], "summary": changed})
    assert [row.cells["distance"].best for row in summary_rows(found)] == [True, True, False]


def test_a_row_an_effect_and_system() -> None:
    rows = score_rows(report())
    assert [(row.effect.name, row.system.label, row.kind) for row in rows] == [
        ("ink", "A", "stochastic"), ("ink", "b", "stochastic"), ("grey", "A", "deterministic"),
        ("grey", "b", "deterministic"), ("old", "A", ""), ("old", "b", ""),
    ]  # fmt: skip
    assert rows[1].failures == {"style-interference": 2}
    assert rows[0].cells["distance"].value is None


def test_families_are_counted_in_the_papers_order() -> None:
    found = count_families(["generalisation-collapse", "texture-and-detail-loss", "generalisation-collapse"])
    assert list(found.items()) == [("generalisation-collapse", 2), ("texture-and-detail-loss", 1)]


def test_a_comparison_says_who_is_better() -> None:
    row = comparison_rows(report())[0]
    assert (row.a, row.b, row.effects, row.difference.text, row.verdict) == ("b", "A", "ink, grey", "0.200", "worse")
    assert row.ratio is not None and (row.ratio.text, row.ratio.interval) == ("2.000", "[1.500, ∞]")


@pytest.mark.parametrize(
    ("mean", "clear", "better", "word"),
    [
        (-0.1, True, "lower", "better"), (0.1, True, "higher", "better"), (-0.1, True, "higher", "worse"),
        (0.1, True, None, "higher"), (0.1, False, "lower", "no clear difference"),
    ],
)  # fmt: skip
def test_verdicts(mean: float, clear: bool, better: str | None, word: str) -> None:
    found = ComparisonEntry(a="a", b="b", metric="m", mean=mean, clear=clear)
    assert verdict(found, MetricRow.model_validate({"title": "m", "better": better})) == word


def report() -> Evaluation:
    return Evaluation.model_validate(REPORT)
