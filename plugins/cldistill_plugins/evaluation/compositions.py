"""Pictures with two effects, made in every way that a bank allows (paper, supplement: composing two effects).

* ``one-prompt``: the collection, told "Please apply {A} to the input image, and then apply {B}.", in its own few steps.
* ``one-after-the-other``: the collection with A, then the collection with B on what came out: twice the evaluations.
* ``two-teachers``: both effects' own LoRAs at once, their deltas added up, at the teachers' steps and told both prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from cldistill.collection.index import COMPOSITION, CollectionIndex, read_index
from cldistill.errors import DataError, ManifestError
from cldistill.progress.signals import never
from cldistill.progress.stages import SilentStages, Stages
from cldistill.records import Item, Prompts
from cldistill.sampling.image_generator import Row, SamplingConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from cldistill_plugins.evaluation.picture_store import Pictures
    from cldistill_plugins.evaluation.setup import EvaluationSetup

TOGETHER, IN_TURN, SUMMED = "one-prompt", "one-after-the-other", "two-teachers"
TITLES = {
    TOGETHER: "the collection, both effects in one prompt",
    IN_TURN: "the collection, one effect after the other",
    SUMMED: "both teachers' adapters summed",
}


@dataclass(frozen=True)
class Composed:
    """Pictures with two effects, made by `compose`: a benchmark measures them."""

    sources: Sequence[Path]
    pairs: Sequence[Pair]
    """Both orders of every two effects."""
    evaluations: Mapping[str, int]
    """System -> calls of the backbone for one picture."""
    outputs: Mapping[str, Mapping[Pair, Sequence[Image]]]
    """System -> pair -> one picture a source; read from the disk when it is indexed."""
    reconstruct: Callable[[Sequence[Image]], list[Image]]
    """Passes pictures through the base's VAE: what a perfect model could give at best."""
    cache: Path
    """Folder of the content-addressed cache, for what is compared with them."""


@dataclass(frozen=True)
class CompositionOrder:
    """The compositions that are wanted: made by a benchmark, carried out by `compose`."""

    manifest: str
    collection: Path
    """Folder of the collection, or its weights file; its base must be the manifest's."""
    pairs: int
    """Number of times two effects: each is made in both orders."""
    pictures: int
    output: Path
    cache: Path | None = None
    """None: the user's own."""
    overrides: Sequence[str] = ()
    teachers: bool = False
    """Also make `SUMMED`; teachers that are not in the cache are trained first."""
    seed: int = 0
    """Draws the pairs, and the noise."""
    knows: Callable[[str], bool] = lambda name: True
    """Effects that may be drawn."""


def compose(order: CompositionOrder, stages: Stages | None = None, stop: Callable[[], bool] = never) -> Composed:
    """Make every picture that the cache lacks.

    Raises:
        ManifestError: the manifest has no ``evaluate:``, which names the held-out pictures.
        CollectionError: the collection was made on another base, or is none.
        DataError: too few effects that collection and manifest share.
        Stopped: ``stop`` said so; what is made is kept.
    """
    from cldistill.data.items import held_out_pictures
    from cldistill.manifest.check import check_manifest
    from cldistill.progress.stages import StoppableStages
    from cldistill.storage.files import default_cache
    from cldistill_plugins.evaluation.request import VaeReconstruction
    from cldistill_plugins.evaluation.setup import load_setup

    shown, cache = StoppableStages(stages or SilentStages(), stop), order.cache or default_cache()
    checked, index = check_manifest(order.manifest, order.overrides), read_index(order.collection)
    evaluate = checked.manifest.evaluate
    if evaluate is None:
        raise ManifestError(
            f"{checked.file.where('evaluate')}: compositions are made of its pictures, and it is not there"
        )
    theirs = {effect.name for effect in index.effects}
    shared = [e.name for e in checked.effects if e.name in theirs and order.knows(e.name)]
    pairs = draw_pairs(shared, order.pairs, order.seed)
    sources = held_out_pictures(evaluate.images, evaluate.pictures)[: order.pictures]
    teachers = {name for pair in pairs for name in (pair.first, pair.second) if order.teachers}
    setup = load_setup(checked, order.output, cache, shown, stop, teachers=teachers, seed=order.seed)
    index.must_be_of(setup.base.fingerprint)
    maker = _Maker(setup, index, sources, evaluate.teacher_steps, cache, shown)
    outputs = {TOGETHER: maker.together(pairs), IN_TURN: maker.in_turn(pairs)}
    evaluations = {TOGETHER: index.schedule.steps, IN_TURN: 2 * index.schedule.steps}
    if order.teachers:
        outputs[SUMMED] = maker.summed(pairs)
        evaluations[SUMMED] = maker.teacher_config(()).evaluations(setup.base)
    return Composed(sources, pairs, evaluations, outputs, VaeReconstruction(setup.base), cache)


@dataclass(frozen=True)
class _Maker:
    setup: EvaluationSetup
    index: CollectionIndex
    sources: Sequence[Path]
    teacher_steps: int
    cache: Path
    stages: Stages

    def together(self, pairs: Sequence[Pair]) -> dict[Pair, Pictures]:
        """Both effects in one prompt."""
        return self._make(TOGETHER, pairs, self._collection, lambda pair: self._rows(pair.name, self._both(pair)))

    def in_turn(self, pairs: Sequence[Pair]) -> dict[Pair, Pictures]:
        """One effect, then the other on its outcome; what many pairs begin with is made once."""
        firsts = [Pair(name, "") for name in dict.fromkeys(pair.first for pair in pairs)]
        begun = self._make(
            f"{IN_TURN}: first", firsts, self._collection, lambda pair: self._rows(pair.first, self._one(pair.first))
        )
        paths = {pair.first: made.paths for pair, made in begun.items()}
        return self._make(
            f"{IN_TURN}: second", pairs, self._collection,
            lambda pair: self._rows(pair.name, self._one(pair.second), paths[pair.first]),
        )  # fmt: skip

    def summed(self, pairs: Sequence[Pair]) -> dict[Pair, Pictures]:
        """Both teachers at once."""
        prompts = {effect.name: effect.prompt for effect in self.setup.checked.effects}

        def rows(pair: Pair) -> list[Row]:
            text = both(prompts[pair.first], prompts[pair.second])
            return self._rows(pair.name, Prompts(text, text))

        return self._make(SUMMED, pairs, lambda pair: self.teacher_config((pair.first, pair.second)), rows)

    def teacher_config(self, effects: Sequence[str]) -> SamplingConfig:
        """Return the teachers' sampling: their own steps, guided as the base says."""
        states = tuple(state for name in effects if (state := self.setup.teachers.state(name)) is not None)
        return SamplingConfig(self.setup.checked.teacher_schedule(self.teacher_steps), False, adapters=states)

    @cached_property
    def _config(self) -> SamplingConfig:
        from cldistill.adapters.files import load_adapter

        index = self.index
        adapter = load_adapter(index.file, self.setup.checked.description.modules)
        return SamplingConfig(index.schedule, True, "student", (adapter,))

    def _collection(self, pair: Pair) -> SamplingConfig:
        """The same file and steps, whatever is asked for."""
        return self._config

    def _both(self, pair: Pair) -> Prompts:
        text = self.index.prompt([pair.first, pair.second])
        return Prompts(text, text)

    def _one(self, name: str) -> Prompts:
        text = self.index.effect(name).prompt
        return Prompts(text, text)

    def _rows(self, pool: str, prompts: Prompts, edited: Sequence[Path] | None = None) -> list[Row]:
        """Rows of one pool; ``edited``: what an earlier pass made of the sources, which gets noise of its own."""
        stage = "held-out" if edited is None else "held-out-second"
        return [
            (Item(f"{stage}/{source.stem}", pool, (path,), prompts.teacher), prompts)
            for source, path in zip(self.sources, edited or self.sources, strict=True)
        ]

    def _make(
        self,
        name: str,
        pairs: Sequence[Pair],
        config: Callable[[Pair], SamplingConfig],
        rows: Callable[[Pair], list[Row]],
    ) -> dict[Pair, Pictures]:
        from cldistill_plugins.evaluation.picture_store import PictureStore
        from cldistill_plugins.evaluation.pictures import Job, make_pictures

        jobs = [Job(name, pair.name, rows(pair), lambda pair=pair: config(pair)) for pair in pairs]  # type: ignore[misc]
        made = make_pictures(self.setup.generator, jobs, PictureStore(self.cache / "edited"), self.stages)
        return {pair: made[name][pair.name] for pair in pairs}


@dataclass(frozen=True)
class Pair:
    """Two effects in the order in which they are applied."""

    first: str
    second: str

    @property
    def name(self) -> str:
        """``first > second``."""
        return f"{self.first} > {self.second}"

    @property
    def swapped(self) -> Pair:
        """The other order."""
        return Pair(self.second, self.first)


def draw_pairs(names: Sequence[str], count: int, seed: int) -> list[Pair]:
    """Draw ``count`` times two different effects, each twice in the result: in both orders.

    Raises:
        DataError: there are fewer than ``count`` pairs.
    """
    possible = list(combinations(sorted(names), 2))
    if count > len(possible):
        raise DataError(f"{count} pairs of effects were asked for, but {len(names)} effects make only {len(possible)}")
    drawn = random.Random(f"pairs {seed}").sample(possible, count)
    return [pair for first, second in drawn for pair in (Pair(first, second), Pair(second, first))]


def both(first: str, second: str) -> str:
    """Ask for two effects in the paper's words."""
    first, second = first.rstrip(". "), second.rstrip(". ")
    return f"Please apply {first} to the input image{COMPOSITION}{second}."
