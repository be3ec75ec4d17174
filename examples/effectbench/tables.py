"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REFERENCES = ("base",)
"""Systems that are only there to be compared with: the bare base knows no effect, and is asked for one alone."""


def figure(value: Mapping[str, Any] | None, percent: bool = False) -> str:
    """Return ``mean [low, high]``; a dash where there is no value."""
    if value is None or value.get("mean") is None:
        return "–"
    scale, digits, sign = (100, 1, " %") if percent else (1, 3, "")
    mean, low, high = (value[key] for key in ("mean", "low", "high"))
    if low is None or high is None or low != low:
        return f"{mean * scale:.{digits}f}{sign}"
    return f"{mean * scale:.{digits}f}{sign} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; bars in cells are escaped."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def system_table(result: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """Return systems by metrics; metrics that no system has are left out."""
    known = [name for name in metrics if any(name in result["summary"].get(s["name"], {}) for s in result["systems"])]
    header = ["system", "evaluations", *(_heading(result["metrics"].get(name, {}), name) for name in known)]
    rows = [
        [
            system.get("title") or system["name"],
            str(system["evaluations"]),
            *(figure(result["summary"].get(system["name"], {}).get(name), _percent(result, name)) for name in known),
        ]
        for system in result["systems"]
        if system["name"] not in REFERENCES
    ]
    floors = [name for name in known if name in result.get("floors", {})]
    if floors:
        cells = [figure(result["floors"].get(name), _percent(result, name)) if name in floors else "" for name in known]
        rows.append(["*fresh truth draws (floor)*", "", *cells])
    return table(header, rows)


def _percent(result: Mapping[str, Any], name: str) -> bool:
    return bool(result["metrics"].get(name, {}).get("percent"))


def _heading(metric: Mapping[str, Any], name: str) -> str:
    arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.get("better") or "", "")
    return f"{metric.get('title', name)}{arrow}"


def comparison_table(result: Mapping[str, Any], metrics: Sequence[str] = ()) -> str:
    """Return the paired differences that are clear of zero, or of the metrics that are named."""
    titles = {system["name"]: system.get("title") or system["name"] for system in result["systems"]}
    rows = [
        [
            f"{titles[c['a']]} − {titles[c['b']]}",
            result["metrics"].get(c["metric"], {}).get("title", c["metric"]),
            c["effects"],
            figure(c, _percent(result, c["metric"])),
        ]
        for c in result.get("comparisons", ())
        if c.get("clear") and c.get("kind", "difference") == "difference" and (not metrics or c["metric"] in metrics)
    ]
    return table(["paired difference", "metric", "effects", "mean [interval]"], rows) if rows else ""


def claims_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the expectations with what was found."""
    rows = [
        [c["text"], c["figure"], figure(c["interval"]) if c["interval"] else "–", f"**{c['verdict']}**"]
        for c in entries
    ]
    return table(["expected", "figure", "found [interval]", "verdict"], rows) if rows else "Nothing measured yet."


def not_run_table(entries: Sequence[Mapping[str, str]]) -> str:
    """Return what was not run, why, and what it would cost."""
    rows = [[e["what"], e["why"], e.get("cost", "")] for e in entries]
    return table(["not run or measured", "why", "cost"], rows) if rows else "Everything was run."


LAYOUTS = {
    "one-per-effect": "a LoRA an effect",
    "one-collection": "ours: one collection",
    "groups": "ours: groups of 50",
}
ROUTERS = {None: "a button", "text-encoder": "text encoder", "vlm": "vision-language model"}


def deployment_table(result: Mapping[str, Any] | None) -> str:
    """Return Table 2: what each way of deploying a bank costs, and how often it is right."""
    if result is None:
        return "Not run."
    header = [
        "effects",
        "layout",
        "router",
        "routing (ms)",
        "right effect",
        "right file",
        "loads",
        "load (ms)",
        "storage (MB)",
    ]
    rows = [
        [
            str(row["effects"]), LAYOUTS[row["layout"]], ROUTERS[row["router"]],
            f"{row['routing_seconds']['mean'] * 1000:.1f}", figure(row["effect_accuracy"], percent=True),
            figure(row["file_accuracy"], percent=True), str(row["loads"]),
            f"{row['load_seconds']['mean'] * 1000:.1f}" if row["load_seconds"] else "–",
            f"{row['storage_bytes'] / 1e6:.1f}",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    return table(header, rows)


def new_effects_table(result: Mapping[str, Any] | None) -> str:
    """Return what became of the effects that the first system lacks: distance and bad cases by every system that has them."""
    if result is None:
        return "Not run."
    means, first = (
        result["per_effect_means"],
        next(s["name"] for s in result["systems"] if s["name"].startswith("ours-")),
    )
    new = [name for name in result["effects"] if name not in means[first]]
    systems = [system for system in result["systems"] if set(means[system["name"]]) & set(new)]
    cells = [[means[s["name"]].get(name) for s in systems] for name in new]
    rows = [
        [name, *("–" if v is None else f"{v['truth_distance']:.3f}, {v['bad_case']:.0%}" for v in row)]
        for name, row in zip(new, cells, strict=True)
    ]
    return table(["distance to the truth ↓, bad cases ↓", *(s["title"] for s in systems)], rows) if rows else "None."


def groups_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return how `cldistill group` split banks: mean interference within a group, and what random splits have."""
    rows = [
        [
            str(sum(len(group["effects"]) for group in result["groups"])),
            " + ".join(str(len(group["effects"])) for group in result["groups"]),
            *(f"{result['figures'][name]:.3f}" for name in ("within", "within_at_random", "reliability")),
        ]
        for result in results
    ]
    header = ["effects", "groups", "interference within a group", "in random groups", "reliability of the measurement"]
    return table(header, rows) if rows else "Not run."


def composition_table(result: Mapping[str, Any] | None) -> str:
    """Return what became of two effects in one prompt."""
    if result is None:
        return "Not run."
    rows = [
        [
            system["title"], str(system["evaluations"] or "–"),
            *(figure(result["summary"][system["name"]][name], percent=True) for name in ("success", "both_effects")),
        ]
        for system in result["systems"]
    ]  # fmt: skip
    return table(["system", "evaluations", "success", "nearer to the composition than to either effect alone"], rows)


def variance_table(result: Mapping[str, Any] | None) -> str:
    """Return the variance of each loss's gradient with one effect a batch, as against an effect an item."""
    if result is None:
        return "Not measured."
    kinds = ("one effect a batch", "an effect an item")
    rows = [
        [name, *(f"{values[kind]:.4f}" for kind in kinds), f"{values['ratio']:.1f}"]
        for name, values in result["losses"].items()
    ]
    return table(["gradient of", *(f"variance, {kind}" for kind in kinds), "ratio"], rows)
