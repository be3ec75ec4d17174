"""An evaluation ends with one sentence."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from cldistill_plugins.evaluation.report.record import Evaluation
from cldistill_plugins.evaluation.summary import summary_tables, verdict


def report(better: str | None, n: int = 3, **means: float | None) -> Evaluation:
    """Return a report of one metric."""
    summary = {name: {"m": {"mean": mean, "low": mean, "high": mean, "n": n}} for name, mean in means.items()}
    systems = [{"name": name, "evaluations": 8} for name in means]
    metric = {"title": "distance", "better": better}
    told = {"format": 1, "name": "x", "effects": [], "pictures": ["a", "b"], "systems": systems, "summary": summary}
    return Evaluation.model_validate({**told, "metrics": {"m": metric}})


def test_the_first_and_the_next_system_are_named_by_the_first_metric_that_ranks() -> None:
    text = verdict(report("lower", ours=0.25, own=0.5, base=None))
    assert text.startswith("By distance, first comes ours with 0.250") and "; then own with 0.500" in text
    assert verdict(report("higher", ours=0.25, own=0.5)).startswith("By distance, first comes own with 0.500")
    assert verdict(report(None, ours=0.25)) == "Nothing of what was measured says which system is better."


def test_systems_that_read_alike_share_their_place() -> None:
    text = verdict(report("lower", a=0.25, b=0.2501, c=0.5))
    assert text.startswith(
        "By distance, first come a with 0.250 [0.250, 0.250] and b with 0.250 [0.250, 0.250]; then c with"
    )


def test_one_picture_has_no_interval_in_the_terminal() -> None:
    told = report("lower", n=1, ours=0.25)
    assert "ours with 0.250 (one picture: no interval)" in verdict(told)
    console = Console(file=StringIO(), width=100)
    effect = {"ours": {"invert": told.summary["ours"]}}
    for table in summary_tables(told.model_copy(update={"per_effect": effect}), 100):
        console.print(table)
    assert console.file.getvalue().count("one picture: no interval") == 2  # type: ignore[attr-defined]


def test_names_are_no_markup_in_the_terminal() -> None:
    told = report("lower", **{"a [/] b": 0.25})
    told = told.model_copy(
        update={
            "metrics": {"m": told.metrics["m"].model_copy(update={"title": "distance [/px]"})},
            "per_effect": {"a [/] b": {"x [bold] y": {"m": told.summary["a [/] b"]["m"]}}},
        }
    )
    console = Console(file=StringIO(), width=100)
    for table in summary_tables(told, 100):
        console.print(table)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a [/] b, 8 evaluations" in shown and "x [bold] y" in shown and "[/px]" in shown
