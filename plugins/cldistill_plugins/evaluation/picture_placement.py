"""The pictures of an evaluation's folder: sources, true outputs, and what every system made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL.Image import Resampling

from cldistill.data.items import open_picture
from cldistill.progress.stages import Stages
from cldistill.records import GENERAL, Item
from cldistill.storage.files import file_digest
from cldistill.storage.tensors import content_key
from cldistill_plugins.evaluation.fingerprints import Fingerprints
from cldistill_plugins.evaluation.metrics import BuiltMetric
from cldistill_plugins.evaluation.picture_store import SUFFIX, PictureStore, place
from cldistill_plugins.evaluation.pictures import Outputs
from cldistill_plugins.evaluation.report.record import pool_folder
from cldistill_plugins.evaluation.request import EvaluationRequest

SOURCE, TRUTH = "source", "truth"


def name_of(item: Item) -> str:
    """Return a picture's name in a report: its stem, or the number of a general instruction."""
    return item.key.rpartition("/")[2]


def place_outputs(folder: Path, outputs: Outputs, items: Mapping[str, Sequence[Item]]) -> None:
    """Let every output lie at ``FOLDER/<system>/<pool>/<picture>.webp``."""
    for system, pools in outputs.items():
        for pool, made in pools.items():
            for item, path in zip(items[pool], made.paths, strict=True):
                place(path, folder / system / pool_folder(pool) / f"{name_of(item)}{SUFFIX}")


def place_sources(folder: Path, outputs: Outputs, items: Mapping[str, Sequence[Item]], store: PictureStore) -> None:
    """Let every held-out source lie at ``FOLDER/source/<picture>.webp``, at the size of the outputs."""
    for item, made in _first_outputs(outputs, items):
        with_size = open_picture(made).size
        key = content_key("source-shown", file_digest(item.sources[0]), *with_size)
        if not store.has(key):
            store.write(key, open_picture(item.sources[0]).resize(with_size, Resampling.LANCZOS))
        place(store.path(key), folder / SOURCE / f"{name_of(item)}{SUFFIX}")


def place_truths(
    folder: Path, request: EvaluationRequest, metrics: Sequence[BuiltMetric], store: PictureStore, stages: Stages
) -> None:
    """Let one true output of every effect lie at ``FOLDER/truth/<effect>/<picture>.webp``, where a metric knows it."""
    knowing = [built for built in metrics if built.truth is not None]
    effects = [effect.name for effect in request.effects if effect.name in request.items]
    if not knowing:
        return
    prints = Fingerprints(request)
    with stages.stage("true outputs", len(effects)) as advance:
        for effect in effects:
            for item in request.items[effect]:
                _place_truth(folder, effect, item, knowing, prints, store)
            advance(1)


def _place_truth(
    folder: Path, effect: str, item: Item, knowing: Sequence[BuiltMetric], prints: Fingerprints, store: PictureStore
) -> None:
    source = folder / SOURCE / f"{name_of(item)}{SUFFIX}"
    if not source.exists():  # no system made a picture of it
        return
    for built in knowing:
        key = content_key("truth-shown", built.identity, prints.effects(effect), file_digest(source), name_of(item))
        if not store.has(key):
            assert built.truth is not None
            truth = built.truth.truth(effect, open_picture(source), name_of(item))
            if truth is None:
                continue
            store.write(key, truth)
        place(store.path(key), folder / TRUTH / pool_folder(effect) / f"{name_of(item)}{SUFFIX}")
        return


def _first_outputs(outputs: Outputs, items: Mapping[str, Sequence[Item]]) -> list[tuple[Item, Path]]:
    """Return every held-out picture with one output of it."""
    found: dict[str, tuple[Item, Path]] = {}
    for pools in outputs.values():
        for pool, made in pools.items():
            if pool != GENERAL:
                for item, path in zip(items[pool], made.paths, strict=True):
                    found.setdefault(item.key, (item, path))
    return list(found.values())
