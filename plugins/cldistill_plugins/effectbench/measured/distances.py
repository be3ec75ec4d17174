"""Distances between outputs and truths of one held-out sample, all from sketches (`metrics.sketch`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics.closeness import closeness
from ..metrics.sketch import ALL, Relative
from .features import PictureFeatures
from .truths import Truths


def relative(features: PictureFeatures, truths: Truths, levels: slice = ALL) -> Relative:
    """Take outputs' sketches relative to the unedited source's: their ``lengths`` are distances to the source."""
    return Relative.of(features["sketch"], truths.source["sketch"], levels)


def to_own(outputs: PictureFeatures, effect: str, truths: Truths) -> tuple[Tensor, Tensor]:
    """Distances of outputs to the effect's reference draws (N, draws), and of the unedited source to them (draws,)."""
    own = relative(truths.own(effect), truths)
    return relative(outputs, truths).squared_distances(own), own.lengths


def share_of_way(output: float, source: float) -> float | None:
    """Closeness of an output by its distance and the source's to the truth; None where the effect changes nothing."""
    return float(closeness(output, source)) if source > 0 else None


@dataclass(frozen=True)
class Rivals:
    """The truths of several effects on one picture, side by side in one matrix."""

    table: Relative
    counts: Mapping[str, int]
    """Draws of each effect, in the order of the table's rows."""

    @classmethod
    def of(cls, effects: Sequence[str], truths: Truths, draws: int) -> Rivals:
        """Take at most ``draws`` draws of each effect."""
        sketches = {effect: truths.own(effect)["sketch"][:draws] for effect in effects}
        table = Relative.of(torch.cat(list(sketches.values())), truths.source["sketch"])
        return cls(table, {effect: len(sketch) for effect, sketch in sketches.items()})

    def nearest(self, outputs: Relative) -> list[dict[str, float]]:
        """For each output the distance to each effect's nearest draw."""
        return [self._nearest(row) for row in outputs.squared_distances(self.table)]

    def of_source(self) -> dict[str, float]:
        """Distance of the unedited source to each effect's nearest draw."""
        return self._nearest(self.table.lengths)

    def _nearest(self, row: Tensor) -> dict[str, float]:
        parts = row.split(list(self.counts.values()))  # type: ignore[no-untyped-call]
        return {effect: float(part.min()) for effect, part in zip(self.counts, parts, strict=True)}


@dataclass(frozen=True)
class Centres:
    """The centre of each effect's truth on one picture: where its draws lie on average (`metrics.sketch.Relative.centre`)."""

    effects: Sequence[str]
    table: Relative
    errors: Tensor
    """Of each centre, as it is known from few draws: what squared distances to it are too large by."""

    @classmethod
    def of(cls, effects: Sequence[str], truths: Truths) -> Centres:
        """Take all reference draws of each effect."""
        centres, errors = zip(*(relative(truths.own(effect), truths).centre() for effect in effects), strict=True)
        rows = torch.cat([centre.rows for centre in centres])
        return cls(effects, Relative(rows, rows.square().sum(dim=1)), torch.stack(errors))

    def distances(self, outputs: Relative) -> list[dict[str, float]]:
        """For each output the distance to each effect's centre."""
        return [self._named(row) for row in outputs.squared_distances(self.table)]

    def of_source(self) -> dict[str, float]:
        """Distance of the unedited source to each effect's centre."""
        return self._named(self.table.lengths)

    def _named(self, row: Tensor) -> dict[str, float]:
        return dict(zip(self.effects, (row - self.errors).tolist(), strict=True))
