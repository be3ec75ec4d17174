"""The held-out pictures that a run will show or measure, and the prompts they go with.

They are listed here once, for those who show them and for the preparation, which encodes them with everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cldistill.data.items import evenly, general_items, list_pictures
from cldistill.manifest.models import Evaluate, Manifest
from cldistill.records import EffectInfo, Item, Prompts

Rows = list[tuple[Item, Prompts]]

PICTURES_OF_RESULT = 2
"""Pictures an effect in ``result.png``."""


def held_out_rows(
    pictures: Sequence[Path], effect: EffectInfo, prompts: Prompts, limit: int | None = None
) -> list[tuple[Item, Prompts]]:
    """Pair held-out pictures with an effect's prompts."""
    chosen = pictures if limit is None else pictures[:limit]
    return [(item, prompts) for item in held_out_items(chosen, effect)]


def held_out_items(pictures: Sequence[Path], effect: EffectInfo) -> list[Item]:
    """List held-out pictures as items of an effect; their keys end with the pictures' names."""
    return [Item(f"held-out/{p.stem}", effect.name, (p,), effect.prompt) for p in pictures]


def grid_effects(effects: Sequence[EffectInfo], wanted: Sequence[str] | None) -> list[EffectInfo]:
    """Return the effects that have a row in the grids of ``samples:``."""
    return [effect for effect in effects if wanted is None or effect.name in wanted]


def grid_picture(pictures: Sequence[Path], index: int) -> Path:
    """Return the picture of a grid's row."""
    return pictures[index % len(pictures)]


def result_pictures(pictures: Sequence[Path], index: int) -> list[Path]:
    """Return the pictures that ``result.png`` shows of the effect at ``index``."""
    return [pictures[(PICTURES_OF_RESULT * index + offset) % len(pictures)] for offset in range(PICTURES_OF_RESULT)]


def general_rows(evaluate: Evaluate) -> list[tuple[Item, Prompts]]:
    """List held-out general instructions, as many as ``evaluate`` wants; none where it names no file."""
    if evaluate.general is None:
        return []
    items = evenly(general_items(evaluate.general.parent, evaluate.general), evaluate.general_pictures)
    return [(item, Prompts(item.prompt, item.prompt)) for item in items]


def later_rows(manifest: Manifest, effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts]) -> Rows:
    """List everything that ``samples:`` and ``evaluate:`` will ask for, each once."""
    rows = [*_grid_rows(manifest, effects, prompts), *_evaluation_rows(manifest, effects, prompts)]
    return list(dict.fromkeys(rows))


def _grid_rows(
    manifest: Manifest, effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts]
) -> Iterable[tuple[Item, Prompts]]:
    samples = manifest.samples
    if samples is None:
        return
    pictures = list_pictures(samples.images)
    for index, effect in enumerate(grid_effects(effects, samples.effects)):
        yield from held_out_rows([grid_picture(pictures, index)], effect, prompts[effect.name])


def _evaluation_rows(
    manifest: Manifest, effects: Sequence[EffectInfo], prompts: Mapping[str, Prompts]
) -> Iterable[tuple[Item, Prompts]]:
    wanted = manifest.evaluate
    if wanted is None:
        return
    pictures = list_pictures(wanted.images)
    for index, effect in enumerate(effects):
        shown = [*pictures[: wanted.pictures], *result_pictures(pictures, index)]
        yield from held_out_rows(shown, effect, prompts[effect.name])
    yield from general_rows(wanted)
