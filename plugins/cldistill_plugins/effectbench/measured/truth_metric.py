"""The base class of all metrics that compare with the truth of an effect of the bank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from cldistill.errors import NotMeasured
from cldistill.protocols import MetricRequest
from cldistill.records import Column

from ..bank import EffectError, knows, named, truth_draws
from .features import FeatureExtractor, HedExtractor, loaded_extractor
from .held_out import known_effects

if TYPE_CHECKING:
    from PIL.Image import Image


class TruthMetric:
    """Knows the truth, and which effects draw it at random."""

    columns: ClassVar[Mapping[str, Column]] = {}
    cached_by: ClassVar[Literal["effect", "effects"]] = "effect"
    version: ClassVar[str]
    """Raised when its values change: cached ones go by it."""
    extractor: ClassVar[type[FeatureExtractor]] = HedExtractor

    def __init__(self, draws: int = 16, seed: int = 0) -> None:
        """Args: draws: of a stochastic effect, the reference; seed: of the reference draws."""
        self.draws = draws
        self.seed = seed

    def truth(self, effect: str, picture: Image, key: str) -> Image | None:
        """Return the first of the reference draws; it depends on the picture's content, so the key is not needed."""
        from PIL import Image as Pillow

        if not knows(effect):
            return None
        try:
            draws = truth_draws(effect, np.asarray(picture.convert("RGB"), dtype=np.uint8), 1, self.seed)
        except EffectError as error:
            raise NotMeasured(str(error)) from error
        return Pillow.fromarray(draws[0])

    def stochastic(self, effect: str) -> bool | None:
        """Return whether the effect draws; None where the bank does not know it."""
        return named(effect).stochastic if knows(effect) else None

    def open_extractor(self, request: MetricRequest) -> FeatureExtractor:
        """Return this metric's feature extractor, once it is clear that there is something to measure.

        Raises:
            NotMeasured: none of the effects is in the bank, or weights are not installed.
        """
        if request.effects and not known_effects(request):
            names = ", ".join(effect.name for effect in request.effects[:5])
            raise NotMeasured(f"the truth of none of the effects ({names}) is known to the bank")
        return loaded_extractor(self.extractor)
