"""``report.html``: an evaluation folder as one page that opens from disk, without any network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cldistill.errors import DataError
from cldistill.records import GENERAL, HELD_PAIRS, probe_pool
from cldistill.storage.files import atomic_write_text
from cldistill_plugins.evaluation.report.cases import cases_of
from cldistill_plugins.evaluation.report.embedding import LIMIT_MEGABYTES, SIDE, Embedded, embed
from cldistill_plugins.evaluation.report.page import as_text_blocks, lacking, render
from cldistill_plugins.evaluation.report.record import TRUTH, Evaluation, read_evaluation
from cldistill_plugins.evaluation.report.tables import cell, comparison_rows, score_rows, summary_rows
from cldistill_plugins.evaluation.summary import verdict

NAME = "report.html"


def write_report(folder: Path, limit: float = LIMIT_MEGABYTES, side: int = SIDE) -> Path:
    """Write ``report.html`` beside the ``report.json`` of an evaluation folder, and return its path.

    The same folder gives the same bytes.  ``limit`` (in 10^6 bytes) bounds the pictures in the page: every effect's
    worst cases come first, and the page says how many were left out.  Pictures are scaled down to ``side`` pixels.

    Raises:
        DataError: the folder has no ``report.json`` of an evaluation, or a picture cannot be read.
    """
    return write_page(folder, read_evaluation(folder), limit, side)


def write_page(folder: Path, evaluation: Evaluation, limit: float = LIMIT_MEGABYTES, side: int = SIDE) -> Path:
    """Write ``report.html`` of an evaluation whose pictures lie in ``folder``: see `write_report`."""
    embedded = embed(folder, evaluation, cases_of(evaluation), limit, side)
    atomic_write_text(folder / NAME, page_of(evaluation, embedded, limit))
    return folder / NAME


def page_of(evaluation: Evaluation, embedded: Embedded, limit: float = LIMIT_MEGABYTES) -> str:
    """Return the whole page.

    Raises:
        DataError: a library that the page carries is not installed.
    """
    if (reason := lacking()) is not None:
        raise DataError(reason)
    # Altair, which writes the charts, comes with the extra `report`.
    from cldistill_plugins.evaluation.report.charts import curve_charts, failure_chart, metric_charts

    charts = metric_charts(evaluation)
    failures = failure_chart(evaluation)
    curves = curve_charts(evaluation)
    rows = comparison_rows(evaluation)
    return render(
        "report.html.j2",
        evaluation=evaluation,
        families=evaluation.families,
        kinds=any(effect.stochastic is not None for effect in evaluation.effects),
        summary=summary_rows(evaluation),
        scores=score_rows(evaluation),
        verdict=verdict(evaluation),
        clear=[row for row in rows if row.clear],
        unclear=[row for row in rows if not row.clear],
        known_truths=TRUTH in embedded.places,
        floors={name: cell(evaluation.floors.get(name), metric) for name, metric in evaluation.metrics.items()},
        charts=charts,
        failures=failures,
        curves=curves,
        specs=[chart["spec"] for chart in (*charts, *filter(None, [failures]), *curves)],
        embedded=embedded,
        limit=limit,
        pictures=as_text_blocks(enumerate(embedded.texts)),
        data=viewer_data(evaluation, embedded),
    )


def viewer_data(evaluation: Evaluation, embedded: Embedded) -> dict[str, Any]:
    """Return what the viewer reads: names, cases in order, every value, and where each picture's text stands."""
    prompts: Mapping[str, Mapping[str, Any]] = {
        pool: {"prompt": effect.prompt, "student": effect.student_prompt, "stochastic": effect.stochastic}
        for effect in evaluation.effects
        for pool in (effect.name, probe_pool(effect.name, HELD_PAIRS))
    }
    return {
        "effects": {**prompts, GENERAL: {"prompt": "a general instruction", "student": "", "stochastic": None}},
        "systems": [{"name": system.name, "label": system.label} for system in evaluation.systems],
        "metrics": {
            name: {"title": metric.title, "better": metric.better, "percent": metric.percent}
            for name, metric in evaluation.metrics.items()
        },
        "families": evaluation.families,
        "general": dict(evaluation.general.prompts),
        "cases": [[case.effect, case.key, case.place] for case in embedded.cases],
        "failures": evaluation.failures,
        "values": _rounded(evaluation),
        "pictures": embedded.places,
    }


def _rounded(evaluation: Evaluation) -> dict[str, Any]:
    return {
        system: {
            pool: {name: [_short(value) for value in values] for name, values in metrics.items()}
            for pool, metrics in pools.items()
        }
        for system, pools in evaluation.values.items()
    }


def _short(value: float | None) -> float | None:
    """Four digits are more than anybody reads, and a third of the text; JSON has no infinity."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
