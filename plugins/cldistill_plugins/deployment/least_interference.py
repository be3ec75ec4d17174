"""The rule of ``cldistill group``: measure how much each two effects disturb each other, then split the bank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .group_run import GroupRequest
from .partition import at_random, balanced_groups, labels_of, within
from .settings import LeastInterferenceSettings

GRADIENTS = "minus the cosine of two effects' flow-matching gradients (above 0: conflict)"
CONFUSION = "share of outputs whose nearest truth is the other effect's, both ways"


@dataclass(frozen=True)
class Grouping:
    """A bank of effects split into collections, and what the split was made from: made by `LeastInterference`."""

    groups: tuple[tuple[str, ...], ...]
    """Names of effects: each in exactly one group, no group larger than ``ceil(effects / groups)``."""
    interference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Effect -> another effect -> how much the two disturb each other in one LoRA: more is worse."""
    measured: str = ""
    """The meaning of the interference and its measurement, for people."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Figures of the measurement and of the split, such as its reliability."""


class LeastInterference:
    """The rule by which a bank is split (paper: one collection holds about 50 effects): the command ``group`` asks it."""

    def __init__(self, settings: LeastInterferenceSettings) -> None:
        self.settings = settings

    def group(self, request: GroupRequest) -> Grouping:
        """Return balanced groups whose pairs interfere least, with the matrix and what it is worth.

        Figures: ``within`` (mean interference of the pairs that share a group), ``within_at_random`` (of random balanced
        splits), and for gradients ``reliability`` (see `cldistill_plugins.deployment.gradients.measure`).
        """
        names = [effect.name for effect in request.effects]
        figures: dict[str, float] = {}
        if self.settings.evaluation is None:
            matrix, reliability = self._gradients(request)
            figures = {} if math.isnan(reliability) else {"reliability": reliability}
        else:
            from .confusion import confusion

            found = confusion(self.settings.evaluation, names, self.settings.system)
            matrix = (found + found.T) / 2
        np.fill_diagonal(matrix, 0.0)
        groups = balanced_groups(matrix, request.groups, self.settings.seed, self.settings.starts)
        figures["within"] = within(matrix, labels_of(groups))
        figures["within_at_random"] = at_random(matrix, request.groups, seed=self.settings.seed)
        return Grouping(
            groups=tuple(tuple(names[index] for index in members) for members in groups),
            interference={
                row: {column: float(matrix[i, j]) for j, column in enumerate(names) if i != j}
                for i, row in enumerate(names)
            },
            measured=GRADIENTS if self.settings.evaluation is None else CONFUSION,
            figures=figures,
        )

    def _gradients(self, request: GroupRequest) -> tuple[NDArray[np.float64], float]:
        from .gradients import measure

        chosen = self.settings
        cosines, reliability = measure(
            request,
            batches=chosen.batches,
            warm_up=chosen.warm_up,
            lr=chosen.lr,
            sketch=chosen.sketch,
            seed=chosen.seed,
        )
        return -cosines.numpy(), reliability
