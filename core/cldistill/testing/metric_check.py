"""The check of a metric: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL.Image import Image

from cldistill.component import AnyComponent
from cldistill.data.items import general_items, pairs_of
from cldistill.protocols import Metric
from cldistill.records import FLOOR, GENERAL, EffectInfo, Item, MetricValues, Prompts
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.pictures import picture, write_general, write_pairs

SYSTEMS = ("base", "teacher@4", "student@4")


@dataclass(frozen=True)
class TinyMetricRequest:
    """Implements `cldistill.protocols.MetricRequest` with pictures that are given to it."""

    effects: Sequence[EffectInfo]
    items: Mapping[str, Sequence[Item]]
    outputs: Mapping[str, Mapping[str, Sequence[Image]]]
    cache: Path
    progress: list[float] = field(default_factory=list, compare=False)
    reference: str | None = "base"
    kept: dict[tuple[str | int | float, ...], str] = field(default_factory=dict, compare=False)

    @property
    def prompts(self) -> Mapping[str, Prompts]:
        """Effect -> prompts as the tiny isolator gives them."""
        return {e.name: Prompts(f"<{e.name}> {e.prompt}", e.prompt, trigger=f"<{e.name}>") for e in self.effects}

    @property
    def digests(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """Hashes of the pictures."""
        return {
            system: {pool: [sha256(shown.tobytes()).hexdigest() for shown in made] for pool, made in pools.items()}
            for system, pools in self.outputs.items()
        }

    @property
    def base_digest(self) -> str:
        """Hash of the tiny base."""
        return "tiny"

    def remember(self, key: Sequence[str | int | float], make: Callable[[], Any]) -> Any:
        """Keep what ``make`` returns, as JSON, as long as this request lives."""
        if tuple(key) not in self.kept:
            self.kept[tuple(key)] = json.dumps(make())
        return json.loads(self.kept[tuple(key)])

    def reconstruct(self, pictures: Sequence[Image]) -> list[Image]:
        """Return copies: the tiny base's VAE is exact."""
        return [shown.copy() for shown in pictures]

    def advance(self, share: float) -> None:
        """Note the share."""
        self.progress.append(share)


def metric_request(folder: Path, size: tuple[int, int] = (64, 64)) -> TinyMetricRequest:
    """Return four pictures of one effect and four of the general pool, by three systems; sources lie under ``folder``."""
    effect = EffectInfo("invert", "invert the colours", write_pairs(folder / "pairs", size=size))
    pairs = pairs_of(effect)
    general = general_items(folder / "general", write_general(folder / "general"))
    # A metric may need the picture that a general instruction should give: here a pair's.
    asked = [replace(item, target=pair.target) for item, pair in zip(general, pairs, strict=True)]
    items = {effect.name: pairs, GENERAL: asked}
    outputs = {
        system: {
            pool: [picture(9000 + 100 * number + index, size) for index in range(len(rows))]
            for pool, rows in items.items()
            if pool != GENERAL or not system.startswith("teacher")
        }
        for number, system in enumerate(SYSTEMS)
    }
    return TinyMetricRequest((effect,), items, outputs, folder / "cache")


def check_metric(
    component: AnyComponent, options: Options = None, *, request: TinyMetricRequest | None = None, fresh: bool = True
) -> None:
    """Assert that it gives plain numbers, one a picture, the same each time, and leaves the pictures alone.

    Args:
        request: Pictures that the metric knows how to measure; by default those of `metric_request`.
        fresh: See `cldistill.testing.check_component`.
    """
    checker, _ = check_component(component, "metric", options, fresh=fresh)
    settings = read_settings(component, options)
    with scratch_context() as context:
        metric: Metric = component.build(settings, context)
        asked = request or metric_request(context.root)
        before = _bytes(asked)
        with checker.leaves_global_random_alone("seed a generator of its own"):
            found = metric(asked)
        checker.require(before == _bytes(asked), "changed the pictures that it was given; work on copies")
        for system, pools in found.items():
            for pool, values in pools.items():
                _values(checker, asked, system, pool, values)
        shares = asked.progress
        fine = all(0 <= share <= 1 for share in shares) and shares == sorted(shares)
        checker.require(fine, f"must tell advance() how much of its work is done so far, from 0 to 1: {shares[:5]}")
        checker.require(metric(asked) == found, "measured twice, it gives two results")


def _values(checker: Checker, request: TinyMetricRequest, system: str, pool: str, values: MetricValues) -> None:
    require = checker.require
    asked = pool in request.items if system == FLOOR else pool in request.outputs.get(system, {})
    require(asked, f"gives values for {system!r} on {pool!r}, which it was not asked for")
    require(isinstance(values, MetricValues), f"must give MetricValues, not {type(values).__name__}")
    count = len(request.items[pool])
    for name, numbers in values.per_picture.items():
        if system != FLOOR:  # fresh truth may be drawn more often than there are pictures
            require(len(numbers) == count, f"{name!r} has {len(numbers)} values for {count} pictures")
        require(all(isinstance(n, (int, float)) for n in numbers), f"{name!r} must hold plain numbers: use float(...)")
    for name, words in values.tags.items():
        require(len(words) == count, f"the tag {name!r} has {len(words)} entries for {count} pictures")
        require(
            all(word is None or isinstance(word, str) for word in words), f"the tag {name!r} must hold text or None"
        )
    for name, ratio in values.ratios.items():
        same = len(ratio.numerator) == len(ratio.denominator) > 0
        require(same, f"the ratio {name!r} must be of two lists over the same pictures")
    for name, number in values.summary.items():
        require(isinstance(number, (int, float)), f"the summary's {name!r} must be a plain number: use float(...)")


def _bytes(request: TinyMetricRequest) -> list[bytes]:
    return [shown.tobytes() for pools in request.outputs.values() for made in pools.values() for shown in made]
