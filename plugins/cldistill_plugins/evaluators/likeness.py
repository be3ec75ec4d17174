"""``likeness``: how near pictures come to the effect's own LoRA's, to a held-out truth, and to the source."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from cldistill.component import BuildContext, Needs, Settings
from cldistill.data.items import open_picture
from cldistill.protocols import Metric, MetricRequest
from cldistill.records import HELD_PAIRS, Column, Item, MetricValues, Ratio, probe_pool

if TYPE_CHECKING:
    from PIL.Image import Image

TEACHER = "teacher"
"""Beginning of the names of the systems that are the effects' own LoRAs."""
SIDES = (16, 32, 64, 128)
"""Sides in pixels at which pictures are compared: colours and light, then shapes, then strokes."""
IDLE = 1e-3
"""A distance of the own LoRA to the source below which the LoRA has done nothing that could be learnt."""


class LikenessSettings(Settings):
    """``likeness`` has no options."""


def describe_likeness(settings: LikenessSettings) -> Needs:
    """Needs nothing beyond Pillow and numpy."""
    return Needs()


def build_likeness(settings: LikenessSettings, context: BuildContext) -> Metric:
    """Return the metric."""
    return Likeness()


class Likeness:
    """``1 - d(output, own LoRA's) / d(source, own LoRA's)``: 1 is the own LoRA's picture, 0 the unedited one.

    ``d`` is the mean absolute difference of the colours, 0 to 1, at several sizes.  The same noise goes to all systems, so
    that a picture can be compared with one; where an effect draws at random, it says less.
    """

    version = "3"
    columns: ClassVar[Mapping[str, Column]] = {
        "likeness": Column("likeness to its own LoRA", "higher"),
        "left_to_truth": Column("way left to the held-out truth", "lower"),
        "from_source": Column("distance to the source"),
    }

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Measure every system: ``from_source`` is ``d(output, source)``, 0 where nothing was edited.

        ``likeness`` compares with the system called ``teacher`` or ``teacher@STEPS``, that of the most steps, where there is
        one.  Where pairs are held out, ``left_to_truth`` is ``d(output, after) / d(before, after)``: 0 is the after-picture, 1
        the unedited one.
        """
        own = reference_system(request.outputs)
        found: dict[str, dict[str, MetricValues]] = {system: {} for system in request.outputs}
        for done, effect in enumerate(request.effects, start=1):
            asked = {system: pools[effect.name] for system, pools in request.outputs.items() if effect.name in pools}
            for system, figures in _figures(asked, request.items.get(effect.name, ()), own).items():
                found[system][effect.name] = MetricValues(figures)
            request.advance(done / len(request.effects))
        for (system, name), ratio in left_to_truth(request).items():
            known = found[system].get(name, MetricValues())
            found[system][name] = replace(known, ratios={"left_to_truth": ratio})
        return found


def _figures(
    asked: Mapping[str, Sequence[Image]], items: Sequence[Item], own: str | None
) -> dict[str, dict[str, list[float]]]:
    """Return system -> figure -> a value a picture, of one effect; each picture is read once, and none is kept."""
    values: dict[str, dict[str, list[float]]] = {system: defaultdict(list) for system in asked}
    for at, item in enumerate(items):
        source, made = open_picture(item.sources[0]), {system: pictures[at] for system, pictures in asked.items()}
        for system, one in made.items():
            if own in made and system != own:
                values[system]["likeness"].append(likeness(one, made[own], source))
            values[system]["from_source"].append(distance(one, source))
    return {system: dict(figures) for system, figures in values.items()}


def left_to_truth(request: MetricRequest) -> dict[tuple[str, str], Ratio]:
    """Return (system, effect) -> distances of its pictures of the held-out pairs to their truth, over those of the befores."""
    found = {}
    for effect in request.effects:
        pool = probe_pool(effect.name, HELD_PAIRS)
        pairs = [item for item in request.items.get(pool, ()) if item.target is not None]
        truths = [(open_picture(item.sources[0]), open_picture(item.target)) for item in pairs if item.target]
        whole = [distance(*pair) for pair in truths]
        for system, pools in request.outputs.items():
            if pool in pools and sum(whole) > IDLE * len(whole):
                made = [distance(one, after) for one, (_, after) in zip(pools[pool], truths, strict=True)]
                found[system, effect.name] = Ratio(made, whole)
    return found


def reference_system(systems: Mapping[str, object]) -> str | None:
    """Return the system that is the effects' own LoRAs, at most steps where there are several."""
    named = [name for name in systems if name.partition("@")[0] == TEACHER]
    return max(
        named, key=lambda name: int(number) if (number := name.partition("@")[2]).isdigit() else 10**9, default=None
    )


def likeness(output: Image, own: Image, source: Image) -> float:
    """Return how near an output comes to the own LoRA's picture; ``nan`` where that is the source itself."""
    whole = distance(source, own)
    return 1.0 - distance(output, own) / whole if whole > IDLE else math.nan


def distance(one: Image, other: Image, sides: Sequence[int] = SIDES) -> float:
    """Return the mean absolute difference of two pictures' colours, 0 to 1, in the mean over several sizes."""
    import numpy as np
    from PIL import Image as Pillow

    def at(picture: Image, side: int) -> np.ndarray:
        small = picture.convert("RGB").resize((side, side), Pillow.Resampling.BOX)
        return np.asarray(small, dtype=np.float64) / 255.0

    return float(np.mean([np.abs(at(one, side) - at(other, side)).mean() for side in sides]))
