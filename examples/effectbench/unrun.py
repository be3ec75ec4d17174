"""What a laptop did not run, and what it would cost: estimated from what was run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZES = (10, 20, 50, 100, 180)


def not_run(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows of the paper's tables that have no result."""
    costs = results.get("costs", {})
    missing = [
        {"what": f"Table 4, {size} effects", "why": "time", "cost": scaling_cost(size, costs)}
        for size in SIZES
        if size != 50 and f"table4-{size}" not in results
    ]
    names = {"table1": "Table 1", "table3": "Table 3", "table5": "Table 5", "steps": "1, 2, 4 and 8 steps",
             "deployment": "Table 2", "composition": "composition", "figures": "figures 4, 5 and 9"}  # fmt: skip
    missing += [{"what": what, "why": "time", "cost": ""} for name, what in names.items() if name not in results]
    return missing


def scaling_cost(size: int, costs: Mapping[str, Any]) -> str:
    """Estimate a further size of Table 4 from the seconds of fifty effects."""
    seconds = {name: float(entry["seconds"]) for name, entry in costs.items()}
    if not {"teachers", "train-coarse", "train-ours", "train-fm"} <= set(seconds):
        return "not estimated"
    share = size / 50
    total = seconds["teachers"] * max(0.0, share - 1) * 2 + share * (seconds["train-coarse"] + seconds["train-fm"])
    total += seconds["train-ours"] + share * seconds.get("table1", 0.0) / 2
    return f"about {total / 3600:.1f} core hours"
