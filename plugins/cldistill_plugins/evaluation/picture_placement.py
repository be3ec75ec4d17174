"""The pictures of an evaluation's folder: sources, true outputs, and what every system made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL.Image import Resampling

from cldistill.data.items import open_picture
from cldistill.progress.stages import Stages
from cldistill.records import GENERAL, HELD_PAIRS, Item, probe_pool
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
        shown = _shown(item.sources[0], open_picture(made).size, store)
        place(shown, folder / SOURCE / f"{name_of(item)}{SUFFIX}")


def _shown(path: Path, size: tuple[int, int], store: PictureStore) -> Path:
    """Return where the store keeps a picture at the size of the outputs."""
    key = content_key("source-shown", file_digest(path), *size)
    if not store.has(key):
        store.write(key, open_picture(path).resize(size, Resampling.LANCZOS))
    return store.path(key)


def place_truths(
    folder: Path, request: EvaluationRequest, metrics: Sequence[BuiltMetric], store: PictureStore, stages: Stages
) -> None:
    """Let one true output of every effect lie at ``FOLDER/truth/<effect>/<picture>.webp``, where a metric knows it.

    The after-pictures of held-out pairs lie at ``FOLDER/truth/<effect>/pairs/<picture>.webp``.
    """
    for effect in request.effects:
        pool = probe_pool(effect.name, HELD_PAIRS)
        for item in request.items.get(pool, ()):
            source = folder / SOURCE / f"{name_of(item)}{SUFFIX}"
            if item.target is not None and source.exists():
                shown = _shown(item.target, open_picture(source).size, store)
                place(shown, folder / TRUTH / pool_folder(pool) / f"{name_of(item)}{SUFFIX}")
    knowing = [built for built in metrics if built.truth is not None]
    effects = [effect.name for effect in request.effects if effect.name in request.items]
    if not knowing:
        return
    prints = Fingerprints(request)
    with stages.stage("true outputs", len(effects)) as advance:
        for name in effects:
            for item in request.items[name]:
                _place_truth(folder, name, item, knowing, prints, store)
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
