"""Turn the evaluations of a working folder into committed results: `results/*.json`, and this folder's README.md.

    python examples/effectbench/render.py WORK

Results that the working folder has no part of stay as they are, and so do rows of `ten` and `fifty` whose systems were not
measured again on the same pictures; with those a row is then compared effect by effect.  The JSON files keep what a table
says, with the command, seed, versions and machine that made it, and each effect's means; every single value and picture
stays in WORK/eval/<table>, where report.html shows them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import claims
from overview import draw_overview
from tables import (
    claims_table,
    comparison_table,
    composition_table,
    deployment_table,
    groups_table,
    new_effects_table,
    not_run_table,
    system_table,
    variance_table,
)
from unrun import not_run

HERE = Path(__file__).parent
KEPT = (
    "format", "name", "created", "command", "seed", "versions", "machine", "systems", "metrics", "pictures", "summary",
    "floors", "comparisons", "not_measured", "not_run",
)  # fmt: skip
BANKS = ("ten", "fifty")
"""Table 1 on the miniature that ships, by the size of its bank."""
HEADLINES = ("truth_distance", "bad_case", "vsa", "hf_distance", "retention")
"""Metrics whose paired differences the page lists; all others are in results/*.json."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder that run.py worked in")
    parser.add_argument("--into", type=Path, default=HERE, metavar="DIR", help="where results go (default: here)")
    given = parser.parse_args(arguments)
    (given.into / "results").mkdir(parents=True, exist_ok=True)
    known = {path.stem: json.loads(path.read_text()) for path in sorted((given.into / "results").glob("*.json"))}
    found = rounded(collect(given.work))
    for name in BANKS:
        if name in found and (kept := with_earlier(found[name], known.get(name, {}))) is not None:
            found |= rounded({name: kept, f"claims-{name}": judged_table1(kept)})
    results = {**known, **found, "costs": {**known.get("costs", {}), **found["costs"]}}
    for name, result in results.items():
        path = given.into / "results" / f"{name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    figures = copy_figures(given.work, given.into)
    (given.into / "README.md").write_text(page(results, figures, given.work), encoding="utf-8")
    print(f"{given.into / 'README.md'}: {len(results)} results, {len(figures)} figures")
    return 0


def collect(work: Path) -> dict[str, Any]:
    """Read what the working folder has, and hold it against the paper's claims."""
    reports = {path.parent.name: json.loads(path.read_text()) for path in sorted((work / "eval").glob("*/report.json"))}
    results: dict[str, Any] = {name: shortened(report) for name, report in reports.items()}
    for name in ("deployment", "composition", "figures"):
        for path in (work / "eval" / f"{name}.json", work / "eval" / name / f"{name}.json"):
            if path.is_file():
                results[name] = json.loads(path.read_text())
    for name in ("split", "groups"):
        path = work / "runs" / name / "groups.json"
        if path.is_file():
            results[name] = json.loads(path.read_text())
    if judged := all_claims(reports):
        results["claims"] = {"claims": [claim.plain() for claim in judged]}
    results |= {f"claims-{name}": judged_table1(reports[name]) for name in BANKS if name in reports}
    if "table5" in reports:
        results["claims-table5"] = judged_table5(reports["table5"])
    results["costs"] = {path.stem: json.loads(path.read_text()) for path in sorted((work / "done").glob("*.json"))}
    return results


def judged_table1(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of Table 1 as JSON data."""
    return {"claims": [claim.plain() for claim in claims.of_table1(report)]}


def with_earlier(result: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Add the rows of systems that were measured earlier on the same pictures and not again; None where there are none.

    ``earlier`` names the evaluation that each of them comes from.
    """
    if any(result.get(key) != known.get(key) for key in ("pictures", "effects", "seed")):
        return None
    again = {system["name"]: system for system in result["systems"]}
    systems = {system["name"]: system for system in known["systems"]} | again
    if systems.keys() == again.keys():
        return None
    rows = {
        key: {name: {**known[key], **result[key]}[name] for name in systems} for key in ("summary", "per_effect_means")
    }
    source = {key: known.get(key) for key in ("created", "command", "versions", "machine")}
    earlier = {name: known.get("earlier", {}).get(name, source) for name in systems if name not in again}
    return {**result, "systems": list(systems.values()), **rows, "earlier": earlier}


def all_claims(reports: Mapping[str, Any]) -> list[claims.Claim]:
    """Judge what can be judged."""
    found = []
    if "table1" in reports:
        found += claims.of_table1(reports["table1"])
    if "steps" in reports:
        found += claims.of_steps(reports["steps"])
    if "table3" in reports:
        found += claims.of_table3(reports["table3"], reports.get("table1"))
    return found


def judged_table5(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of Table 5 as JSON data: of the collection with the fewest effects and that with the most."""
    grown = [system["name"] for system in report["systems"] if system["name"].startswith("ours-")]
    return {"claims": [claim.plain() for claim in claims.of_table5(report, grown[0], grown[-1])]}


def shortened(report: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a table says, and each effect's means."""
    kept = {key: report[key] for key in KEPT if key in report}
    means = {
        system: {effect: {name: value["mean"] for name, value in metrics.items()} for effect, metrics in pools.items()}
        for system, pools in report["per_effect"].items()
    }
    return {**kept, "effects": [effect["name"] for effect in report["effects"]], "per_effect_means": means}


def rounded(data: Any) -> Any:
    """Round every float to five digits, more is noise; and name no folder of the machine that measured."""
    if isinstance(data, float):
        return round(data, 5)
    if isinstance(data, str):
        return data.replace(str(Path.home()), "~")
    if isinstance(data, Mapping):
        return {key: rounded(value) for key, value in data.items()}
    return [rounded(value) for value in data] if isinstance(data, (list, tuple)) else data


OVERVIEWS = ("table1", "ten", "fifty")
"""Evaluations of which a picture of all effects is drawn."""


def copy_figures(work: Path, into: Path) -> list[Path]:
    """Copy the plots beside the page and draw the pictures of all effects; returns the plots that lie there."""
    (into / "figures").mkdir(exist_ok=True)
    for name in OVERVIEWS:
        report = work / "eval" / name / "report.json"
        if report.is_file():
            draw_overview(report.parent, json.loads(report.read_text()), into / "figures" / f"{name}.webp")
    for path in (work / "eval" / "figures").glob("*.png"):
        shutil.copyfile(path, into / "figures" / path.name)
    return sorted((into / "figures").glob("*.png"))


def page(results: Mapping[str, Any], figures: Sequence[Path], work: Path) -> str:
    """Return the page."""
    text = (HERE / "page.md").read_text(encoding="utf-8")
    parts = {
        "claims": claims_table(results.get("claims", {}).get("claims", ())),
        "claimsfifty": claims_table(results.get("claims-fifty", {}).get("claims", ())),
        "fifty": _table(results, "fifty", ("truth_distance", "truth_closeness", "bad_case", "vsa", "recognised",
                                           "hf_distance", "retention")),
        "fiftycoarse": _table(results, "fifty-coarse", ("truth_distance", "truth_closeness", "bad_case", "recognised",
                                                        "hf_distance")),
        "comparefifty": _compared(results, "fifty") or "None.",
        "claimsten": claims_table(results.get("claims-ten", {}).get("claims", ())),
        "ten": _table(results, "ten", ("truth_distance", "truth_closeness", "bad_case", "vsa", "recognised", "hf_distance",
                                       "retention")),
        "compareten": _compared(results, "ten") or "None.",
        "taught": _table(results, "taught", ("truth_distance", "bad_case", "hf_distance")),
        "comparetaught": _compared(results, "taught", ("truth_distance", "bad_case", "hf_distance")) or "None.",
        "coarse": _table(results, "coarse", ("truth_distance", "bad_case", "hf_distance")),
        "comparecoarse": _compared(results, "coarse", ("truth_distance", "bad_case", "hf_distance")) or "None.",
        "targets": _table(results, "targets", ("truth_distance", "bad_case", "hf_distance")),
        "comparetargets": _compared(results, "targets", ("truth_distance", "bad_case", "hf_distance")) or "None.",
        "sampler": _table(results, "sampler", ("truth_distance", "bad_case", "hf_distance")),
        "comparesampler": _compared(results, "sampler", ("bad_case", "hf_distance")) or "None.",
        "table1": _table(results, "table1", ("truth_distance", "bad_case", "vsa", "recognised", "hf_distance", "retention")),
        "table1b": _table(results, "table1", ("truth_closeness", "truth_energy", "lpips_source", "soft_case",
                                              "bleeding_untriggered", "bleeding_wrong_trigger")),
        "anchor": _table(results, "anchor", ("truth_distance", "bad_case", "hf_log_ratio", "hf_distance")),
        "compare1": _compared(results, "table1") or "None.",
        "table3": _table(results, "table3", ("truth_distance", "bad_case", "hf_log_ratio", "hf_distance", "retention")),
        "compare3": _compared(results, "table3") or "None.",
        "steps": _table(results, "steps", ("truth_distance", "bad_case", "hf_distance")),
        "table4": "\n\n".join(_scaling(results)),
        "long": _table(results, _longest(results), ("truth_distance", "bad_case", "recognised", "hf_distance")),
        "longcompare": _compared(results, _longest(results)),
        "levers": _table(results, "levers", ("truth_distance", "bad_case", "hf_log_ratio", "hf_distance")),
        "comparelevers": comparison_table(results["levers"]) if "levers" in results else "",
        "variance": variance_table(results.get("variance")),
        "table5": _table(results, "table5", ("truth_distance", "truth_closeness", "bad_case")),
        "claimstable5": claims_table(results.get("claims-table5", {}).get("claims", ())),
        "new": new_effects_table(results.get("table5")),
        "table2": deployment_table(results.get("deployment")),
        "groups": groups_table([results[name] for name in ("split", "groups") if name in results]),
        "composition": composition_table(results.get("composition")),
        "not_run": not_run_table([*not_run(results), *_unmeasured(results)]),
        "figures": "\n\n".join(f"![{path.stem}](figures/{path.name})" for path in figures) or "Not made yet.",
    }  # fmt: skip
    for name, value in parts.items():
        text = text.replace(f"<!-- {name} -->", value)
    return text


def _table(results: Mapping[str, Any], name: str, metrics: Sequence[str]) -> str:
    return system_table(results[name], metrics) if name in results else "Not run."


def _compared(results: Mapping[str, Any], name: str, metrics: Sequence[str] = HEADLINES) -> str:
    return comparison_table(results[name], metrics) if name in results else ""


def _longest(results: Mapping[str, Any]) -> str:
    return next((name for name in results if name.startswith("long-")), "long")


def _scaling(results: Mapping[str, Any]) -> list[str]:
    names = sorted((name for name in results if name.startswith("table4-")), key=lambda name: int(name.split("-")[1]))
    metrics = ("truth_distance", "bad_case", "hf_distance")
    parts = [f"**{name.split('-')[1]} effects**\n\n{system_table(results[name], metrics)}" for name in names]
    return parts or ["Not run."]


def _unmeasured(results: Mapping[str, Any]) -> list[dict[str, str]]:
    entries = results.get("table1", {}).get("not_measured", ())
    return [{"what": f"metric `{e['component']}`", "why": e["reason"], "cost": ""} for e in entries]


if __name__ == "__main__":
    raise SystemExit(main())
