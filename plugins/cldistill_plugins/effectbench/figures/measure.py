"""Figures 4 and 5 of one run: every effect with its pairs, one after another, so that each teacher is mounted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cldistill_plugins.effectbench.figures.opened import OpenedRun

from ..metrics.high_frequency import CUT_OFF
from .bounds import CRITIC_TIMESTEPS, measure_bounds
from .probe import Probe
from .summary import Values, by_effect, mean_of_pairs, over_effects
from .vanishing import TIMESTEPS, measure_vanishing

TAU_MAX, TAU_MIN = 750.0, 500.0
"""The paper's bounds (section 3.3)."""


@dataclass(frozen=True)
class MeasurementOptions:
    """The options of one measurement, from the command line of ``figures``: noise bounds, critic slot and batch size."""

    tau_max: float = TAU_MAX
    tau_min: float = TAU_MIN
    critic: str = "critic"
    rows: int = 12


def measure(opened: OpenedRun, options: MeasurementOptions, advance: Callable[[int], None]) -> dict[str, Any]:
    """Return ``figure4`` and ``figure5``; ``advance`` is called once an effect."""
    vanishing: list[Values] = []
    bounds: list[Values] = []
    for effect in opened.effects:
        probes = [Probe(opened, effect, pair, options.critic, options.rows) for pair in range(opened.pairs)]
        vanishing.append(mean_of_pairs([measure_vanishing(probe, options.tau_max) for probe in probes]))
        bounds.append(mean_of_pairs([measure_bounds(probe) for probe in probes]))
        advance(1)
    names = list(opened.effects)
    shared = {
        "effects": names, "pairs": opened.pairs, "tau_max": options.tau_max, "tau_min": options.tau_min, "cut_off": CUT_OFF,
    }  # fmt: skip
    steps = [round(float(sigma) * 1000.0, 1) for sigma in opened.run.schedule.sigmas()]
    return {
        "figure4": {
            **shared, "t": list(TIMESTEPS), "values": over_effects(vanishing), "per_effect": by_effect(names, vanishing),
        },
        "figure5": {
            **shared, "t_gen": steps, "t_critic": list(CRITIC_TIMESTEPS), **over_effects(bounds),
            "per_effect": by_effect(names, bounds),
        },
    }  # fmt: skip
