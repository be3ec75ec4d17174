"""Small pictures, their truths, and requests about outputs whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cldistill.errors import NotMeasured
from cldistill.records import EffectInfo, Item
from cldistill.testing.metric_check import TinyMetricRequest
from cldistill_plugins.effectbench.bank import named, truth_draws
from cldistill_plugins.effectbench.measured.features import HedExtractor, loaded_extractor

EFFECTS = ("halftone", "mosaic", "party-frame")
"""The last one is stochastic."""
SIDE = 48
Outputs = Mapping[str, Mapping[str, Sequence[Image.Image]]]


@dataclass
class Studio:
    """Coloured blocks with a disc, and what effects make of them.  The VAE of its requests is perfect."""

    cache: Path
    sources: Sequence[Path]
    effects: Sequence[str] = EFFECTS

    def pictures(self) -> list[Image.Image]:
        """The unedited pictures."""
        return [Image.open(path) for path in self.sources]

    def draws(self, effect: str, path: Path, count: int = 4, seed: int = 0) -> list[Image.Image]:
        """Truths of one picture."""
        return [Image.fromarray(draw) for draw in truth_draws(effect, np.array(Image.open(path)), count, seed)]

    def truth(self, effect: str) -> list[Image.Image]:
        """One truth of every picture: the last of the four reference draws of a stochastic effect."""
        return [self.draws(effect, path)[-1] for path in self.sources]

    def ask(self, outputs: Outputs, sources: Sequence[Path] | None = None) -> TinyMetricRequest:
        """Ask about outputs of the effects, and of whatever probes there are among them."""
        infos = [EffectInfo(name, named(name).prompt) for name in self.effects]
        pools = {*self.effects, *(pool for pools in outputs.values() for pool in pools)}
        items = {pool: [Item(f"{pool}/{p.stem}", pool, (p,), "") for p in sources or self.sources] for pool in pools}
        return TinyMetricRequest(infos, items, outputs, self.cache)


def write_sources(folder: Path, count: int) -> list[Path]:
    """Write ``count`` pictures of 48x48: an ellipse or a box of one colour somewhere on a ground of two."""
    paths = []
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for seed in range(count):
        random = np.random.default_rng(seed)
        ground, sky, colour = random.integers(20, 235, (3, 3))
        across, down = random.uniform(0.25, 0.75, 2)
        wide, high = random.uniform(0.15, 0.4, 2)
        dx, dy = np.abs(x - across) / wide, np.abs(y - down) / high
        shape = (dx**2 + dy**2 < 1) if seed % 2 else np.maximum(dx, dy) < 1
        picture = np.where((y > 0.3 + 0.4 * random.random())[..., None], ground, sky)
        paths.append(folder / f"{seed}.png")
        Image.fromarray(np.where(shape[..., None], colour, picture).astype(np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Two pictures; all metrics share one cache, as in an evaluation."""
    pytest.importorskip("gmic")
    folder = tmp_path_factory.mktemp("studio")
    return Studio(folder / "cache", write_sources(folder, 2))


@pytest.fixture
def eight(studio: Studio, tmp_path: Path) -> Studio:
    """Eight pictures and the stochastic effect alone."""
    return Studio(tmp_path / "cache", write_sources(tmp_path, 8), EFFECTS[-1:])


@pytest.fixture
def hed() -> None:
    """Skip where the weights of HED-VGG LPIPS are not installed; one thread, which is faster on small pictures."""
    torch.set_num_threads(1)
    try:
        loaded_extractor(HedExtractor)
    except NotMeasured as error:
        pytest.skip(str(error))
