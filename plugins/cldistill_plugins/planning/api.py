"""Public names of the plugin ``planning``, for other plugins and the examples."""

from __future__ import annotations

from cldistill_plugins.planning.calls import Cycle, backward_cost, cycles
from cldistill_plugins.planning.hours import guidance_calls, recent_steps
from cldistill_plugins.planning.plan import Plan, make_plan
from cldistill_plugins.planning.print import count, print_plan

__all__ = [
    "Cycle", "Plan", "backward_cost", "count", "cycles", "guidance_calls", "make_plan", "print_plan", "recent_steps",
]  # fmt: skip
