"""Nothing is made or measured twice: pictures and values are kept by what they depend on, and a stop loses nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cldistill.data.encodings import Encoder
from cldistill.errors import Stopped
from cldistill.progress.stages import SilentStages, StoppableStages
from cldistill.protocols import MetricRequest
from cldistill.records import MetricValues, Prompts
from cldistill.samples import held_out_items
from cldistill.sampling.image_generator import ImageGenerator, SamplingConfig
from cldistill.schedule import Schedule
from cldistill.storage.files import source_digest
from cldistill.storage.tensors import TensorCache
from cldistill.testing.adapters import random_adapter, randomise_slot
from cldistill.testing.contexts import tiny_run
from cldistill.testing.pictures import write_pictures
from cldistill_plugins.evaluation.end_of_run import slot_digest
from cldistill_plugins.evaluation.metrics import code_digest
from cldistill_plugins.evaluation.picture_store import Pictures, PictureStore, place
from cldistill_plugins.evaluation.pictures import Job, make_pictures
from cldistill_plugins.sharding.api import Shard

BARE = {"name": "bare", "adapter": None, "steps": 2}
BASE = {"name": "base", "adapter": "teacher", "steps": 2}
POOLS = ["invert", "soften", "general"]


@pytest.mark.slow
def test_the_same_evaluation_makes_and_measures_nothing_again(desk: Any) -> None:
    first = desk.evaluate(BARE, BASE)
    # Two systems x (2 effects x 2 pictures + 2 general ones), but in the general pool a teacher is the bare base.
    # And two sources, which the folder shows.
    assert first.made == 2 * 4 + 2 + 2
    assert len(desk.brightness[-1].asked) == 1
    report = desk.report()
    again = desk.evaluate(BARE, BASE, output="again")
    assert again.made == 0
    assert desk.brightness[-1].asked == []
    assert "measuring brightness  already there" in desk.text
    for key in ("values", "summary", "per_effect", "general", "systems"):
        assert desk.report("again")[key] == report[key]
    assert desk.pixels("base", "invert", output="again").any()


@pytest.mark.slow
def test_one_more_picture_or_system_makes_only_what_is_new(desk: Any) -> None:
    desk.evaluate(BARE)
    assert desk.evaluate(BARE, pictures=3).made == 2 + 1  # one of each effect, and one more source
    assert desk.evaluate(BARE, BASE, pictures=3).made == 6
    assert (
        desk.evaluate(BARE, {**BASE, "steps": 3}, pictures=3).made == 6 + 2
    )  # the general pool at 3 steps is new, too
    assert desk.evaluate(BARE, seed=2, pictures=3).made == 8


class ByEffect:
    """Promises that its values depend on their own pool alone, and writes down what it was asked."""

    version = "1"
    asked: list[dict[str, list[str]]] = []  # noqa: RUF012 (the test looks at all of them)

    def __init__(self, cached_by: str) -> None:
        self.cached_by = cached_by

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Give each picture a number, and the floor another one."""
        self.asked.append({system: list(pools) for system, pools in request.outputs.items()})
        found = {
            system: {pool: MetricValues({"n": [float(i) for i, _ in enumerate(made)]}) for pool, made in pools.items()}
            for system, pools in request.outputs.items()
        }
        floor = {
            pool: MetricValues({"n": [0.5]})
            for pools in request.outputs.values()
            for pool in pools
            if pool != "general"
        }
        return {**found, "floor": floor}


@pytest.mark.slow
def test_a_metric_by_effect_is_asked_for_new_pools_alone(desk: Any) -> None:
    desk.metric("by-effect", lambda context: ByEffect("effect"))
    desk.metric("by-effects", lambda context: ByEffect("effects"))
    ByEffect.asked.clear()
    desk.evaluate(BARE, metrics=["by-effect"])
    desk.evaluate(BARE, BASE, metrics=["by-effect"])
    # In the general pool both systems are the bare base: measured already.
    assert ByEffect.asked == [{"bare": POOLS}, {"base": ["invert", "soften"]}]
    assert set(desk.report()["values"]["bare"]) == set(POOLS)
    assert desk.report()["floors"]["n"]["mean"] == 0.5
    ByEffect.asked.clear()
    desk.evaluate(BARE, metrics=["by-effects"])
    effects = [{**effect, "prompt": f"{effect['name']} it"} for effect in _effects(desk)]
    desk.evaluate(BARE, metrics=["by-effects"], parts={"effects": [effects[0], _effects(desk)[1]]})
    assert ByEffect.asked[1] == {"bare": POOLS}  # one effect changed its prompt, and all may depend on all
    desk.evaluate(BARE, metrics=["by-effect"], parts={"effects": [_effects(desk)[0], effects[1]]})
    assert ByEffect.asked[2] == {"bare": ["soften"]}


def _effects(desk: Any) -> list[dict[str, Any]]:
    teacher = {"use": "tiny-teacher"}
    return [
        {"name": e, "prompt": f"{e} the picture", "teacher": teacher, "pairs": str(desk.root / "data" / e)}
        for e in ("invert", "soften")
    ]


class Remembers:
    """Asks for one thing to be remembered, and once for the process to be stopped right after."""

    made: list[str] = []  # noqa: RUF012

    def __init__(self, once: Path | None = None) -> None:
        self.once = once

    def __call__(self, request: MetricRequest) -> Mapping[str, Mapping[str, MetricValues]]:
        """Remember a number for each picture by its digest."""
        found: dict[str, dict[str, MetricValues]] = {}
        for system, pools in request.outputs.items():
            for pool in pools:
                values = [
                    request.remember(("value", digest), self._make(digest)) for digest in request.digests[system][pool]
                ]
                if self.once is not None and not self.once.exists():
                    self.once.touch()
                    os.kill(os.getpid(), signal.SIGINT)
                request.advance(0.5)
                found.setdefault(system, {})[pool] = MetricValues({"remembered": values})
        return found

    def _make(self, digest: str) -> Any:
        def make() -> float:
            self.made.append(digest)
            return float(len(self.made))

        return make


@pytest.mark.slow
def test_a_stop_within_a_metric_loses_nothing_that_was_made(desk: Any) -> None:
    desk.metric("remembers", lambda context: Remembers(desk.root / "once"))
    Remembers.made.clear()
    stopped = desk.evaluate(BARE, BASE, metrics=["remembers"])
    assert not stopped.finished
    assert stopped.report is None
    assert "Stopped while measuring remembers" in desk.text
    assert "Go on with:\n  cldistill eval eval.yaml" in desk.text
    before = len(Remembers.made)
    assert before == 2  # one pool of two pictures
    done = desk.evaluate(BARE, BASE, metrics=["remembers"])
    assert done.finished
    assert done.made == 0
    assert len(Remembers.made) == len(set(Remembers.made))
    assert desk.report()["values"]["bare"]["invert"]["remembered"] == [1.0, 2.0]


def test_a_stop_while_pictures_are_made_keeps_them(tmp_path: Path) -> None:
    run = tiny_run()
    effect = run.effects[0]
    pictures = sorted(write_pictures(tmp_path / "held-out", 3).iterdir())
    rows = [(item, run.prompts[effect.name]) for item in held_out_items(pictures, effect)]
    generator = ImageGenerator(run.base, run.slots, Encoder(run.base, TensorCache(tmp_path / "encodings")))
    configs = {steps: SamplingConfig(Schedule(steps), False) for steps in (1, 2)}
    jobs = [Job(f"bare-{steps}", effect.name, rows, lambda steps=steps: configs[steps]) for steps in configs]  # type: ignore[misc]
    store = PictureStore(tmp_path / "store")
    with pytest.raises(Stopped, match="editing the held-out pictures"):
        make_pictures(generator, jobs, store, StoppableStages(SilentStages(), lambda: store.written > 0))
    assert store.written == 3  # the batch that was under way
    made = make_pictures(generator, jobs, store, SilentStages())
    assert store.written == 6
    assert len(made["bare-1"][effect.name]) == 3
    assert set(made["bare-1"][effect.name].digests).isdisjoint(made["bare-2"][effect.name].digests)


def test_a_picture_is_known_by_all_that_it_depends_on(tmp_path: Path) -> None:
    run = tiny_run()
    effect, prompts = run.effects[0], Prompts("student", "teacher", "", "t")
    one, two = held_out_items(sorted(write_pictures(tmp_path / "held-out", 2).iterdir()), effect)
    generator = ImageGenerator(run.base, run.slots, Encoder(run.base, TensorCache(tmp_path / "encodings")))
    state = random_adapter(run.base, "x")
    config = SamplingConfig(Schedule(4), False)
    others = [
        replace(config, schedule=Schedule(5)), replace(config, schedule=Schedule(4, 2.0)), replace(config, few_step=True),
        replace(config, schedule=Schedule(4, stochastic=False), few_step=True),
        replace(config, told="student"), replace(config, adapters=(state,)), replace(config, adapters=(state, state)),
        replace(config, slot="student", slot_digest=slot_digest(run.slots, "student")),
    ]  # fmt: skip
    keys = [generator.key(other, one, prompts) for other in (config, *others)]
    keys += [generator.key(config, two, prompts), generator.key(config, one, replace(prompts, teacher="other"))]
    keys.append(replace(generator, seed=2).key(config, one, prompts))
    assert len(set(keys)) == len(keys)
    assert generator.key(config, one, replace(prompts, student="never heard")) == keys[0]
    before = slot_digest(run.slots, "student")
    randomise_slot(run.base, run.slots, "student", "again")
    assert slot_digest(run.slots, "student") != before


def test_the_store_and_what_is_placed(tmp_path: Path) -> None:
    store = PictureStore(tmp_path / "store")
    pictures = [Image.new("RGB", (8, 8), (index * 40, 3, 200)) for index in range(3)]
    for index, picture in enumerate(pictures):
        store.write(f"{index}a", picture)
    lazy = Pictures([store.path(f"{index}a") for index in range(3)])
    assert [shown.tobytes() for shown in lazy] == [picture.tobytes() for picture in pictures]  # lossless
    assert len(set(lazy.digests)) == 3
    assert [shown.tobytes() for shown in lazy[1:]] == [picture.tobytes() for picture in pictures[1:]]
    assert lazy[0] is not lazy[0]  # none is kept
    target = tmp_path / "out" / "x.webp"
    place(store.path("0a"), target)
    place(store.path("1a"), target)
    assert Image.open(target).convert("RGB").tobytes() == pictures[1].tobytes()
    assert Image.open(store.path("0a")).convert("RGB").tobytes() == pictures[0].tobytes()


def test_values_are_forgotten_when_the_metrics_code_changes(tmp_path: Path) -> None:
    file = tmp_path / "maths.py"
    file.write_text("def measure(request):\n    return {}\n")
    spec = importlib.util.spec_from_file_location("a_metric_of_a_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = code_digest(module.measure)
    assert code_digest(module.measure) == before
    (file.parent / "deep").mkdir()
    (file.parent / "deep" / "more.py").write_text("FACTOR = 2\n")
    source_digest.cache_clear()  # another process
    assert code_digest(module.measure) != before


@pytest.mark.slow(3)
def test_shares_make_every_picture_once_and_the_last_call_only_measures(desk: Any) -> None:
    """Whole batches, so that all pictures are those of an evaluation in one piece, to the bit."""
    made = [desk.evaluate(BARE, BASE, pictures=3, shard=Shard(number, 3)).made for number in (3, 1)]
    assert not (desk.root / "out").exists()
    stopped = desk.evaluate(BARE, BASE, pictures=3, shard=Shard(1, 3))  # one that was killed begins again
    assert stopped.report is None
    assert stopped.made == 0
    made.append(desk.evaluate(BARE, BASE, pictures=3, shard=Shard(2, 3)).made)
    assert min(made) > 0
    assert sum(made) == 2 * (2 * 3 + 2) - 2  # in the general pool both systems are the bare base
    assert all(not metric.asked for metric in desk.brightness)
    merged = desk.evaluate(BARE, BASE, pictures=3)
    assert merged.made == 3  # the sources, which the folder shows
    assert desk.report()["values"].keys() == {"bare", "base"}
    shared = {path.name: path.read_bytes() for path in (desk.root / "cache/evaluation").rglob("*.webp")}
    (desk.root / "cache").rename(desk.root / "cache-of-shares")
    desk.evaluate(BARE, BASE, pictures=3, output="whole")
    assert {path.name: path.read_bytes() for path in (desk.root / "cache/evaluation").rglob("*.webp")} == shared
