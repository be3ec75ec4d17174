"""Comparing what systems made with references, sources and texts in the feature space of a network.

Shapes: ``N`` pictures, ``R`` references, ``D`` features; all features are fp32 on the CPU and have length 1, so that an
inner product is the cosine similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from cldistill.data.items import open_picture
from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import GENERAL, EffectInfo, Item, MetricValues

from .references import reference_pairs

if TYPE_CHECKING:
    from PIL.Image import Image

Against = Literal["reference", "source", "text"]


class Features(Protocol):
    """A network that turns pictures, and perhaps texts, into features."""

    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """Return ``[N, D]`` of length 1."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return ``[N, D]`` of length 1."""


@dataclass
class Comparison:
    """Cosine similarities (or ``1 -`` them, as a distance) of every output to what ``names`` says, under those names."""

    features: Features
    names: Mapping[Against, str]
    references: int = 1
    """After-pictures of an effect's pairs that an output is compared with; the mean counts."""
    batch_size: int = 16
    distance: bool = False
    _pictures: dict[Path, Tensor] = field(default_factory=dict, init=False, repr=False)
    _texts: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system on every effect, and on the general pool, where no reference exists.

        Raises:
            NotMeasured: only references were asked for, and no effect has pairs.
        """
        effects = {effect.name: effect for effect in request.effects}
        pools = {pool: effects.get(pool) for pool in request.items if pool in effects or pool == GENERAL}
        wanted = {pool: names for pool, effect in pools.items() if (names := self._names(effect))}
        if not wanted:
            raise NotMeasured("no effect has pairs, and an output is compared with an after-picture of those")
        total = sum(len(made[pool]) for made in request.outputs.values() for pool in wanted if pool in made)
        done = 0

        def advance(pictures: int) -> None:
            nonlocal done
            done += pictures
            request.advance(done / total)

        found: dict[str, dict[str, MetricValues]] = {}
        for system, made in request.outputs.items():
            for pool, names in wanted.items():
                if pool in made:
                    values = self._measure(made[pool], request.items[pool], pools[pool], names, advance)
                    found.setdefault(system, {})[pool] = MetricValues(values)
        return found

    def _names(self, effect: EffectInfo | None) -> dict[Against, str]:
        """Leave out the reference where there is none."""
        has = effect is not None and bool(reference_pairs(effect, 1))
        return {against: name for against, name in self.names.items() if has or against != "reference"}

    @torch.no_grad()
    def _measure(
        self,
        made: Sequence[Image],
        items: Sequence[Item],
        effect: EffectInfo | None,
        names: Mapping[Against, str],
        advance: Callable[[int], None],
    ) -> dict[str, list[float]]:
        values: dict[str, list[float]] = {name: [] for name in names.values()}
        for indices in _chunks(len(made), self.batch_size):
            outputs = self.features.pictures([made[index] for index in indices])
            for against, name in names.items():
                others = self._others(against, [items[index] for index in indices], effect)
                similar = (outputs.unsqueeze(1) * others).sum(dim=-1).mean(dim=1)
                values[name] += (1 - similar if self.distance else similar).tolist()
            advance(len(indices))
        return values

    def _others(self, against: Against, items: Sequence[Item], effect: EffectInfo | None) -> Tensor:
        """Return what the outputs of ``items`` are compared with, ``[N or 1, R, D]``."""
        if against == "source":
            return self._of_files([item.sources[0] for item in items]).unsqueeze(1)
        if against == "text":
            return torch.stack([self._of_text(item.prompt) for item in items]).unsqueeze(1)
        assert effect is not None, "the general pool has no reference"
        targets = [pair.target for pair in reference_pairs(effect, self.references) if pair.target is not None]
        return self._of_files(targets).unsqueeze(0)

    def _of_files(self, paths: Sequence[Path]) -> Tensor:
        new = [path for path in dict.fromkeys(paths) if path not in self._pictures]
        for indices in _chunks(len(new), self.batch_size):
            chunk = [new[index] for index in indices]
            self._pictures.update(
                zip(chunk, self.features.pictures([open_picture(path) for path in chunk]), strict=True)
            )
        return torch.stack([self._pictures[path] for path in paths])

    def _of_text(self, text: str) -> Tensor:
        if text not in self._texts:
            self._texts[text] = self.features.texts([text])[0]
        return self._texts[text]


def unit(features: Tensor) -> Tensor:
    """Return features of length 1 along the last axis, fp32 on the CPU."""
    return torch.nn.functional.normalize(features.float(), dim=-1).cpu()


def _chunks(count: int, size: int) -> Iterator[range]:
    return (range(start, min(start + size, count)) for start in range(0, count, size))
