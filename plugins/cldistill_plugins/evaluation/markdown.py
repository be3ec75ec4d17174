"""``report.md``: the tables of an evaluation, for a pull request or a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cldistill_plugins.evaluation.bootstrap import ONE_PICTURE
from cldistill_plugins.evaluation.report.figures import ARROWS


def markdown(report: Mapping[str, Any]) -> str:
    """Return ``report.json`` as Markdown; intervals are 95 % bootstrap intervals over pictures."""
    parts = [f"# {report['name']}", _heading(report), *_systems(report), *_comparisons(report), *_effects(report)]
    parts += _listed(report)
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """Return a Markdown table; the first ``text`` columns are text, the others are figures."""
    lines = [header, [*["---"] * text, *["---:"] * (len(header) - text)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _heading(report: Mapping[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    return (
        f"{len(report['effects'])} effects x {len(report['pictures'])} held-out pictures, seed {report['seed']}. "
        f"Intervals: 95 %, bootstrap over pictures.\n\n"
        f"`{report['command']}`, {report['created']}; {', '.join(f'{name} {v}' for name, v in versions.items())}; "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {machine['platform']}"
    )


def _systems(report: Mapping[str, Any]) -> Iterator[str]:
    metrics = report["metrics"]
    if not metrics:
        return
    header = ["system", "evaluations", *(f"{m['title']}{ARROWS[m['better']]}" for m in metrics.values())]
    rows = []
    for system in report["systems"]:
        found = report["summary"].get(system["name"], {})
        cells = [_cell(found.get(name), shown["percent"]) for name, shown in metrics.items()]
        rows.append([system["title"], str(system["evaluations"]), *cells])
    if report["floors"]:
        rows.append(["*fresh truth*", "", *(_cell(report["floors"].get(n), m["percent"]) for n, m in metrics.items())])
    yield f"## Systems\n\n{table(header, rows)}"
    notes = [f"- {system['title']}: {system['note']}" for system in report["systems"] if system["note"]]
    if notes:
        yield "\n".join(notes)


def _comparisons(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["comparisons"]:
        return
    titles = {system["name"]: system["title"] for system in report["systems"]}
    rows = []
    for one in report["comparisons"]:
        shown = report["metrics"][one["metric"]]
        verdict = "clear" if one["clear"] else "within noise"
        rows.append([
            f"{titles[one['a']]} - {titles[one['b']]}", f"{shown['title']}{ARROWS[shown['better']]}", one["effects"],
            verdict, _cell(one, shown["percent"], sign=True), _cell(one["ratio"], False),
        ])  # fmt: skip
    header = ["difference", "metric", "effects", "", "mean of the paired difference", "ratio of the means"]
    yield f"## Comparisons, picture by picture\n\n{table(header, rows, 4)}"


def _effects(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield one table a metric that is known by effect: a row an effect, a column a system."""
    systems = [system for system in report["systems"] if system["name"] in report["per_effect"]]
    for name, shown in report["metrics"].items():
        rows = []
        for effect in report["effects"]:
            found = [report["per_effect"][s["name"]].get(effect["name"], {}).get(name) for s in systems]
            if any(found):
                rows.append([_name(effect), *(_cell(interval, shown["percent"], short=True) for interval in found)])
        if rows:
            header = ["effect", *(system["title"] for system in systems)]
            yield f"## {shown['title']}{ARROWS[shown['better']]}, effect by effect\n\n{table(header, rows)}"


def _name(effect: Mapping[str, Any]) -> str:
    return f"{effect['name']} (stochastic)" if effect["stochastic"] else str(effect["name"])


def _listed(report: Mapping[str, Any]) -> Iterator[str]:
    if report["not_measured"]:
        lines = [f"- `{entry['component']}`: {entry['reason']}" for entry in report["not_measured"]]
        yield "## Not measured\n\n" + "\n".join(lines)
    if report["not_run"]:
        rows = [[entry["what"], entry["why"], entry["cost"]] for entry in report["not_run"]]
        yield "## Not run\n\n" + table(["what", "why", "cost"], rows, 3)


def _cell(interval: Mapping[str, Any] | None, percent: bool, *, sign: bool = False, short: bool = False) -> str:
    """Write ``mean [low, high]``; a dash where nothing is known, and no interval of one picture."""
    if interval is None or interval["mean"] is None:
        return "–"
    mean, low, high = (_figure(interval[name], percent, sign) for name in ("mean", "low", "high"))
    unknown = interval["low"] is None and interval["high"] is None
    if interval["n"] == 1 and not short:
        return f"{mean} ({ONE_PICTURE})"
    return mean if short or unknown else f"{mean} [{low}, {high}]"


def _figure(value: float | None, percent: bool, sign: bool) -> str:
    if value is None:
        return "∞"
    plus = "+" if sign else ""
    return f"{value:{plus}.1%}" if percent else f"{value:{plus}.3g}"
