"""The live display: numbers, panel, plain lines and stages."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
from rich.console import Console

from cldistill.hookspecs import RunHooks
from cldistill.markers import PROJECT
from cldistill.progress.live import LiveStages, duration
from cldistill.records import StepResult, UpdateResult
from cldistill_plugins.display.display import Display
from cldistill_plugins.display.panel import BARS, number, panel, plain_line, sparkline
from cldistill_plugins.display.statistics import Smooth, Statistics, Trend


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def result(step: int, pools: tuple[str, ...] = ("manga",), loss: float = 0.5, skipped: bool = False) -> StepResult:
    stream = "general" if pools == ("general",) else "effect"
    student = UpdateResult("student", 0, stream, pools, {"ta-fm": loss}, {}, loss, skipped)
    critics = [UpdateResult("critic", n, stream, ("gold",), {"fake-score": 2.0}, {}, 1.5) for n in range(2)]
    return StepResult(step, (student, *critics), 2.0, 35, 1203.4)


def run(total: int = 20) -> Any:
    return SimpleNamespace(name="demo [x]", total_steps=total, output=Path("runs/demo [/x]"))


def console(terminal: bool, width: int = 100) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=width, height=40, color_system=None)


def text(of: Console) -> str:
    assert isinstance(of.file, StringIO)
    return of.file.getvalue()


def test_smooth_starts_at_its_first_value_and_ignores_nan() -> None:
    smooth = Smooth(0.9)
    assert smooth.value is None
    for value in (3.0, math.nan, 3.0, math.inf):
        smooth.add(value)
    assert smooth.value == pytest.approx(3.0)
    smooth.add(5.0)
    assert smooth.value is not None and 3.0 < smooth.value < 5.0


def test_trend_covers_the_whole_run_in_few_buckets() -> None:
    trend = Trend(8)
    for value in range(100):
        trend.add(float(value))
    assert 4 <= len(trend.values) < 8
    assert list(trend.values) == sorted(trend.values)
    assert trend.values[0] == pytest.approx(sum(range(16)) / 16)


def test_sparkline_spans_least_to_greatest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BARS
    assert sparkline([1.0, 1.0], 8) == BARS[0] * 2
    assert len(sparkline(list(range(100)), 24)) == 24
    assert sparkline([], 8) == ""


def test_formats() -> None:
    assert [duration(x) for x in (None, 0, 59.6, 3599, 3661)] == ["–", "0:00", "1:00", "59:59", "1:01:01"]
    assert [number(x) for x in (None, math.nan, 0.5)] == ["–", "not finite", "0.5000"]
    assert [number(x) for x in (123456.0, 1e-5)] == ["1.23e+05", "1e-05"]


def test_eta_follows_the_wall_clock() -> None:
    clock = Clock()
    statistics = Statistics(10, clock=clock)
    assert statistics.snapshot().eta(clock.now) is None
    for step in range(1, 5):
        clock.now += 3.0
        statistics.add(result(step))
    view = statistics.snapshot()
    assert view.eta(clock.now) == pytest.approx(18.0)
    assert view.eta(clock.now + 1.0) == pytest.approx(17.0)
    assert view.seconds_per_step.value == pytest.approx(2.0)


def test_the_panel_shows_everything() -> None:
    statistics = Statistics(20, start_step=2)
    statistics.add(result(3))
    statistics.add(result(4, ("general",), math.nan, skipped=True))
    statistics.add(result(5, ("manga", "gold", "general")))
    statistics.checkpoint = 4
    out = console(terminal=False)
    out.print(panel(statistics.snapshot(), "title", "below", statistics.snapshot().finished_at, 0.0, 100))
    shown = text(out)
    for part in ("title", "below", "5 / 20", "25 %", "effect · 3 pools mixed", "ta-fm", "fake-score", "critic"):
        assert part in shown, part
    for part in ("2 s/step", "35 forwards", "1,203 MB peak", "1 skipped", "last checkpoint step 4", "▪✗▪", "1.5000"):
        assert part in shown, part
    assert "general\N{NO-BREAK SPACE}1" in shown


def test_the_panel_fits_narrow_terminals() -> None:
    statistics = Statistics(20)
    for step in range(1, 10):
        statistics.add(result(step, (f"a-rather-long-effect-name-{step}",)))
    for width in (60, 80, 120):
        out = console(terminal=False, width=width)
        out.print(panel(statistics.snapshot(), "title", "below", 0.0, 0.0, width))
        assert max(map(len, text(out).splitlines())) == min(width, 100)


def test_plain_lines_come_every_so_often_and_at_both_ends() -> None:
    out = console(terminal=False, width=40)
    display, this = Display(out, every=5), run(12)
    display.run_started(this, 0)
    for step in range(1, 13):
        display.step_finished(this, result(step))
    display.checkpoint_saved(this, 12, Path("runs/demo/checkpoints/step-000012"))
    display.run_finished(this, 12, stopped=False)
    lines = text(out).splitlines()
    assert [line.split("|")[0].strip() for line in lines if line.startswith("step")] == [
        "step  1/12", "step  5/12", "step 10/12", "step 12/12",
    ]  # fmt: skip
    assert "demo [x]: started, 12 steps" in text(out)
    assert "ta-fm 0.5000 | fake-score 2.0000 | grad student 0.5000, critic 1.5000 | 2 s/step | 1,203 MB" in text(out)
    assert any(line.endswith("checkpoints/step-000012") for line in lines)
    assert lines[-1].startswith("done at step 12 after 0:0")


def test_plain_line_counts_skipped_steps() -> None:
    statistics = Statistics(2)
    statistics.add(result(1, loss=math.nan, skipped=True))
    line = plain_line(statistics.snapshot(), 0.0)
    assert "skipped 1" in line and "ta-fm –" in line


@pytest.mark.parametrize("end", ["done", "stopped", "NonFiniteError"])
def test_the_last_panel_says_how_it_ended(end: str) -> None:
    out = console(terminal=True)
    display, this = Display(out), run()
    display.run_started(this, 0)
    display.step_finished(this, result(1))
    if end == "NonFiniteError":
        from cldistill.errors import NonFiniteError

        display.run_failed(this, NonFiniteError("bad"))
    else:
        display.run_finished(this, 1, stopped=end == "stopped")
    shown = text(out)
    assert f"demo [x] · {end}" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is visible again


def test_it_is_an_observer() -> None:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RunHooks)
    manager.register(Display(console(terminal=False)))
    assert len(manager.hook.run_failed.get_hookimpls()) == 1
    manager.check_pending()


def test_plain_stages() -> None:
    out, clock = console(terminal=False), Clock()
    stages = LiveStages(out, clock)
    with stages.stage("sampling targets", total=120) as advance:
        for _ in range(3):
            clock.now += 6.0
            advance(40)
    with stages.stage("teacher of [manga]", total=300):
        pass
    with pytest.raises(RuntimeError), stages.stage("encoding", total=4) as advance:
        advance(1)
        raise RuntimeError
    assert text(out).splitlines() == [
        "sampling targets: 80/120",
        "✓ sampling targets  120   0:18",
        "✓ teacher of [manga]  already there",
        "✗ encoding  stopped at 1 of 4",
    ]


def test_nested_stages_share_one_live_area() -> None:
    out = console(terminal=True)
    stages = LiveStages(out)
    with stages.stage("teachers", total=1) as outer:
        with stages.stage("manga", total=5) as inner:
            inner(5)
        outer(1)
    with stages.stage("again", total=1) as advance:
        advance(1)
    shown = text(out)
    assert shown.index("✓ manga") < shown.index("✓ teachers") < shown.index("✓ again")


def test_a_step_without_an_update_leaves_the_panel_as_it_was() -> None:
    clock = Clock()
    statistics = Statistics(10, 0, clock)
    statistics.add(StepResult(1, (), 1.0, 0, 10.0))
    assert not statistics.snapshot().losses
    statistics.add(result(2))
    before = statistics.snapshot()
    statistics.add(StepResult(3, (), 1.0, 0, 10.0))
    after = statistics.snapshot()
    assert (after.step, after.stream, after.pools) == (3, before.stream, before.pools)
    assert {name: loss.last for name, loss in after.losses.items()} == {
        name: loss.last for name, loss in before.losses.items()
    }
