"""Cases in the order in which a reader wants them."""

from __future__ import annotations

from cldistill_plugins.evaluation.report.cases import ReportCase, cases_of, in_turns
from cldistill_plugins.evaluation.report.record import Evaluation

REPORT = {
    "format": 1, "name": "x", "effects": [{"name": "ink"}, {"name": "grey"}], "pictures": ["p", "q"],
    "systems": [{"name": "a"}, {"name": "b"}],
    "metrics": {
        "truth_distance": {"title": "distance", "better": "lower"}, "clip": {"title": "CLIP", "better": "higher"},
    },
    "values": {
        "a": {
            "ink": {"truth_distance": [0.1, 0.5], "clip": [0.9, 0.1]},
            "grey": {"truth_distance": [0.3, None], "clip": [0.2, 0.3]},
        },
        "b": {"ink": {"truth_distance": [0.1, 0.1]}, "grey": {"truth_distance": [0.3, None]}},
    },
}  # fmt: skip


def names(evaluation: Evaluation) -> list[str]:
    return [f"{case.effect}/{case.key}" for case in cases_of(evaluation)]


def test_worse_figures_come_first_and_what_nobody_measured_last() -> None:
    assert names(Evaluation.model_validate(REPORT)) == ["ink/q", "grey/p", "ink/p", "grey/q"]


def test_failures_come_before_figures_and_more_failures_before_fewer() -> None:
    bad = "style-interference"
    failures = {"a": {"grey": {"q": bad}, "ink": {"p": bad}}, "b": {"grey": {"q": bad}}}
    found = Evaluation.model_validate(REPORT | {"failures": failures})
    assert names(found) == ["grey/q", "ink/p", "ink/q", "grey/p"]
    assert [case.failing for case in cases_of(found)] == [2, 1, 0, 0]


def test_higher_is_better_where_the_metric_says_so() -> None:
    only = {"metrics": {"clip": {"title": "CLIP", "better": "higher"}}}
    assert names(Evaluation.model_validate(REPORT | only))[0] == "ink/q"


def test_cases_are_dealt_out_by_effect() -> None:
    ink, grey = (lambda key: ReportCase("ink", key, 0, 0, ())), (lambda key: ReportCase("grey", key, 0, 0, ()))
    dealt = in_turns([ink("1"), ink("2"), ink("3"), grey("1")])
    assert dealt == [ink("1"), grey("1"), ink("2"), ink("3")]
