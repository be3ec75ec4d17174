"""``dreamsim``: the perceptual distance of Fu et al. (arXiv 2306.09344), by the authors' own package and weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cldistill.component import BuildContext, LocalPath, Needs, Settings
from cldistill.protocols import Metric
from cldistill.records import Column
from cldistill.storage.files import default_cache

from .compared import Compared
from .dreamsim_files import find_checkpoints
from .models import fingerprint, need, reason

if TYPE_CHECKING:
    from .similarity import Against

NAMES: Mapping[Against, str] = {"reference": "dreamsim", "source": "dreamsim_source"}
COLUMNS = {
    "dreamsim": Column("DreamSim to the reference", "lower"),
    "dreamsim_source": Column("DreamSim to the source", "lower"),
}
VERSION = "1"
"""Of what this file computes; cached values go by it."""
Variant = Literal["ensemble", "dino_vitb16", "clip_vitb32", "open_clip_vitb32"]


class DreamSimSettings(Settings):
    """Options of ``dreamsim``."""

    variant: Variant = Field("ensemble", description="which of the published models")
    folder: LocalPath | None = Field(
        None, description="folder of the checkpoints, as the package's `cache_dir`; null: models/dreamsim in the cache"
    )
    download: bool = Field(
        False, description="whether what is missing may be downloaded from where its authors keep it"
    )
    against: tuple[Literal["reference", "source"], ...] = Field(
        ("reference",), min_length=1, description="what an output is compared with"
    )
    references: int = Field(1, ge=1, description="after-pictures of the effect's pairs; their mean counts")
    batch_size: int = Field(16, ge=1, description="pictures at once")


def describe_dreamsim(settings: DreamSimSettings) -> Needs:
    """Needs the package and weights; an evaluation goes on without them."""

    def look() -> None:
        need("dreamsim", "cldistill[eval]")
        if not settings.download:
            find_checkpoints(settings.folder or _usual_folder(default_cache()), settings.variant, download=False)

    return Needs(lacks=reason(look))


def _usual_folder(cache: Path) -> Path:
    return cache / "models" / "dreamsim"


def build_dreamsim(settings: DreamSimSettings, context: BuildContext) -> Metric:
    """Find the checkpoints; they are loaded when there is something to measure.  Raises `NotMeasured`."""
    need("dreamsim", "cldistill[eval]")
    from .dreamsim_network import load_dreamsim

    folder = settings.folder or _usual_folder(context.cache)
    find_checkpoints(folder, settings.variant, download=settings.download)
    names: dict[Against, str] = {against: NAMES[against] for against in settings.against}
    load = partial(load_dreamsim, folder, settings.variant, context.device)
    version = f"{VERSION} {fingerprint(folder)}"
    return Compared(COLUMNS, names, version, load, settings.references, settings.batch_size, distance=True)
