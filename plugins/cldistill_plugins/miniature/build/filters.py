"""Filters under names, for the transformer to train on beside the styles: 19 kinds, each with many settings."""

from dataclasses import dataclass

import numpy as np

from cldistill_plugins.miniature.build.filter_kinds import MAKERS, as_pixels
from cldistill_plugins.miniature.build.names import colour_word, unique_names
from cldistill_plugins.miniature.build.pictures import Picture

COUNT = 228
SEED = 22


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: a kind, and the number that its settings are drawn from."""

    name: str
    kind: str
    number: int

    @property
    def wordings(self) -> tuple[str, ...]:
        """Prompts that ask for it."""
        return f"apply {self.name}", f"{self.name} look"

    def apply(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """The picture through this filter: uint8 (H, W, 3), the same shape; `rng` draws what differs between pictures."""
        settings = np.random.default_rng([SEED, self.number])
        return as_pixels(MAKERS[self.kind](picture.astype(np.float64), settings, rng))


def draw_filters(count: int = COUNT) -> list[Filter]:
    """The first `count` filters, the same on every machine; a name has the colour that the filter makes of a test card."""
    kinds = [list(MAKERS)[index % len(MAKERS)] for index in range(count)]
    stems = []
    for number, kind in enumerate(kinds):
        shown = Filter("", kind, number).apply(_card(), np.random.default_rng(0))
        stems.append(f"{kind} {colour_word(shown.reshape(-1, 3).mean(0))}")
    names = unique_names(stems, SEED)
    return [Filter(name, kind, number) for number, (name, kind) in enumerate(zip(names, kinds, strict=True))]


def _card() -> Picture:
    """Greys from black to white, with a disc of warm colour."""
    y, x = np.mgrid[:64, :64]
    card = np.repeat((x * 4).astype(np.uint8)[..., None], 3, 2)
    card[np.hypot(y - 32, x - 32) < 20] = (200, 120, 70)
    return card
