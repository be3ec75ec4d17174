"""The page as text: the same every time, nothing unescaped, nothing to fetch."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cldistill.testing.evaluation import write_evaluation
from cldistill_plugins.evaluation.report.charts import curve_charts, failure_chart, metric_charts
from cldistill_plugins.evaluation.report.html import write_report
from cldistill_plugins.evaluation.report.page import _inline, vega
from cldistill_plugins.evaluation.report.record import Curve, CurveLine, read_evaluation
from cldistill_plugins.evaluation.summary import verdict

NASTY = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation whose every text tries to be markup."""
    made = write_evaluation(tmp_path_factory.mktemp("html") / "evaluation", ("ink", "grey"), pictures=2, size=16)
    report: dict[str, Any] = json.loads((made / "report.json").read_text())
    report["effects"][0]["prompt"] = report["systems"][0]["title"] = report["name"] = NASTY
    report["metrics"]["bcr"]["title"] = report["command"] = report["curves"][0]["title"] = NASTY
    report["not_run"][0]["why"] = report["not_measured"][0]["reason"] = report["systems"][1]["note"] = NASTY
    (made / "report.json").write_text(json.dumps(report))
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_the_same_folder_gives_the_same_bytes(folder: Path, page: str) -> None:
    assert write_report(folder).read_text(encoding="utf-8") == page
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_the_plots_script_is_bundled_once_a_machine(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = vega()
    (kept,) = (own_cache / "report").iterdir()
    assert kept.read_text(encoding="utf-8") == made
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda **options: pytest.fail("bundled again"))
    assert vega() == made


def test_texts_are_escaped_everywhere(page: str) -> None:
    assert NASTY not in page
    assert page.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") >= 8
    data = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["effects"]["ink"]["prompt"] == NASTY


def test_the_policy_of_the_page_forbids_every_request(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert "http" not in policy[1]
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", page)


def test_the_page_is_a_few_megabytes(page: str) -> None:
    assert 1.5e6 < len(page) < 3e6


def test_infinite_values_do_not_break_the_data(folder: Path, tmp_path: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    report["values"]["ours"]["ink"]["bcr"] = [float("inf"), float("nan")]
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["values"]["ours"]["ink"]["bcr"] == [None, None]


def test_charts_hold_the_figures(folder: Path) -> None:
    evaluation = read_evaluation(folder)
    charts = metric_charts(evaluation)
    assert [len(chart["spec"]["layer"]) for chart in charts] == [3, 2, 2], "only bcr has a floor"
    assert "Ours" in charts[1]["spec"]["description"]
    curve = curve_charts(evaluation)[0]["spec"]
    rows = curve["data"]["values"] if "values" in curve["data"] else next(iter(curve["datasets"].values()))
    assert len(rows) == 26
    assert failure_chart(evaluation.model_copy(update={"failures": {}})) is None


def test_a_line_named_like_a_system_has_its_colour(folder: Path) -> None:
    evaluation = read_evaluation(folder)
    metric = metric_charts(evaluation)[0]["spec"]["layer"][0]["encoding"]["color"]["scale"]
    colours = dict(zip(metric["domain"], metric["range"], strict=True))
    points = [(0.0, 1.0)]
    lines = [CurveLine(name=name, points=points) for name in ("something else", "ours", NASTY)]
    changed = evaluation.model_copy(update={"curves": [Curve(title="loss", lines=lines)]})
    scale = curve_charts(changed)[0]["spec"]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["something else", "ours", NASTY]
    assert scale["range"][1:] == [colours["Ours"], colours[NASTY]]
    assert scale["range"][0] not in colours.values()


def test_a_library_that_would_end_its_element_is_refused() -> None:
    with pytest.raises(ValueError, match="another version"):
        _inline("x = '</SCRIPT>'")


def comparison(metric: str, clear: bool) -> dict[str, Any]:
    return {"a": "ours", "b": "base", "metric": metric, "mean": -0.1, "low": -0.2, "high": 0.0, "n": 4, "clear": clear}


def test_the_verdict_and_the_pictures_come_before_the_tables_and_what_says_nothing_is_folded(tmp_path: Path) -> None:
    told = [comparison("bcr", True), comparison("truth_distance", False), comparison("detail", False)]
    folder = write_evaluation(tmp_path, ("ink",), pictures=1, size=16, comparisons=told)
    text = write_report(folder).read_text(encoding="utf-8")
    assert verdict(read_evaluation(folder)).replace(" %", "\u00a0%") in text
    marks = ('id="verdict"', 'id="pictures"', 'id="results"', 'id="comparisons"', 'id="unclear"', 'id="effects"')
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    folded = text[text.index('<details id="unclear">') : text.index("</details>")]
    assert "2 without a clear difference" in folded and folded.count("no clear difference") == 2
    assert text.count("no clear difference") == 2 and text.count(">better<") == 1


def test_one_picture_has_no_interval_on_the_page(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, ("ink",), pictures=1, size=16, comparisons=[])
    charts = str([chart["spec"] for chart in metric_charts(read_evaluation(folder))])
    assert "one picture: no interval" in charts and "'low': None" in charts and "'low': 0" not in charts
    figures = re.findall(r'<span class="interval">\[?([^<]*)</span>', write_report(folder).read_text(encoding="utf-8"))
    assert figures.count("one picture: no interval") > 6 and [f for f in figures if "," in f] == [
        "0.0, 2.0]"
    ]  # the floor


def test_nothing_is_called_the_truth_where_none_is_known(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, ("ink",), pictures=1, size=16)
    assert '<option value="truth"' in write_report(folder).read_text(encoding="utf-8")
    shutil.rmtree(folder / "pictures/truth")
    assert '<option value="truth"' not in write_report(folder).read_text(encoding="utf-8")


def test_columns_and_filters_that_would_be_empty_are_left_out(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, ("ink",), pictures=1, size=16, failures={})
    told = json.loads((folder / "report.json").read_text())
    told["effects"] = [{"name": "ink", "prompt": "draw it with ink"}]  # nobody knows whether it draws
    (folder / "report.json").write_text(json.dumps(told))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "Failure" not in text[text.index("<main>") : text.index("</main>")]
    assert ">Kind" not in text and ">Failures<" not in text
