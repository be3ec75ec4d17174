"""The teacher source ``collection``: the exact prompt, the own few steps, no guidance, one base."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from cldistill.adapters.slots import TEACHER, AdapterSlots
from cldistill.collection.export import export_collection
from cldistill.collection.round_trip import fixed_probe
from cldistill.data.encodings import Encoder
from cldistill.errors import CollectionError
from cldistill.random import KeyedRandom
from cldistill.records import EffectInfo, Prompts
from cldistill.sampling.image_generator import ImageGenerator, SamplingConfig
from cldistill.sampling.samplers import few_step, predictor
from cldistill.schedule import Schedule
from cldistill.storage.tensors import TensorCache
from cldistill.testing import (
    TinyBase,
    TinyBaseSettings,
    check_teacher_source,
    randomise_slot,
    teacher_request,
    write_pairs,
)
from cldistill.testing.pictures import effect_items
from cldistill.weights import AdapterState
from cldistill_plugins.incremental.collection import CollectionSettings, CollectionTeacher, describe_collection
from cldistill_plugins.incremental.plugin import register_teacher_sources

EFFECTS = (EffectInfo("ink", "draw it"), EffectInfo("gold", "gild it"))
PROMPTS = {
    "ink": Prompts("vexo  ink lines, with  two blanks. ", "draw it", trigger="vexo"),
    "gold": Prompts("kuli gold", "gild it", trigger="kuli"),
}
SAMPLER = Schedule(3, 2.0)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    base = TinyBase(TinyBaseSettings())
    slots = AdapterSlots(base.backbone)
    slots.add("student", base.adapter_targets, 2, 2.0, torch.Generator().manual_seed(0))
    randomise_slot(base, slots, "student", 1)
    return export_collection(
        tmp_path / "collection", base=base, slots=slots, slot="student", weights=slots.state("student"), weights_kind="raw",
        effects=EFFECTS, prompts=PROMPTS, schedule=SAMPLER, title="two", steps=1,
        resolved_manifest="cldistill: 1\n", base_part=("tiny-base", {}), teacher_digests={}, manifest_digest="",
        probe=fixed_probe(base, PROMPTS["ink"].student, TensorCache(tmp_path / "probe")),
    )  # fmt: skip


def test_it_brings_the_prompt_of_the_collection_to_the_letter(exported: Path) -> None:
    needs = describe_collection(CollectionSettings(path=exported, effect="ink"))
    assert needs.prompts == Prompts(PROMPTS["ink"].student, PROMPTS["ink"].student, trigger="vexo")
    assert needs.adapter is not None and needs.adapter.parent == exported
    with pytest.raises(CollectionError, match=r"no effect 'inc'; did you mean 'ink'\?"):
        describe_collection(CollectionSettings(path=exported, effect="inc"))


def test_as_the_teacher_of_a_manifests_effects_it_teaches_each_its_own(exported: Path) -> None:
    settings = CollectionSettings.model_validate({"path": exported}, context={"root": exported, "effect": "gold"})
    assert describe_collection(settings).prompts == Prompts(
        PROMPTS["gold"].student, PROMPTS["gold"].student, trigger="kuli"
    )
    with pytest.raises(ValidationError, match="name the effect of the collection"):
        CollectionSettings(path=exported)


def test_of_a_collection_that_a_run_will_make_a_plan_asks_nothing_but_that_it_be_there(tmp_path: Path) -> None:
    needs = describe_collection(CollectionSettings(path=tmp_path / "later", effect="ink"))
    assert (needs.adapter, needs.prompts) == (tmp_path / "later", None)


@pytest.mark.slow
def test_it_keeps_what_teacher_sources_promise(exported: Path) -> None:
    (component,) = register_teacher_sources()
    check_teacher_source(component, {"path": str(exported), "effect": "gold"})


def test_it_carries_its_sampler_and_one_adapter_for_all_effects(exported: Path, tmp_path: Path) -> None:
    request = teacher_request(tmp_path / "request", TinyBase(TinyBaseSettings()))
    ink, gold = (
        CollectionTeacher(CollectionSettings(path=exported, effect=name)).adapter(request) for name in ("ink", "gold")
    )
    assert ink is not None and gold is not None
    assert (ink.few_step, ink.digest) == (SAMPLER, gold.digest)
    assert ink.scaled(2.0).few_step == SAMPLER  # a stronger one is sampled in the same way


def test_targets_are_sampled_by_its_own_few_steps_and_without_guidance(exported: Path, tmp_path: Path) -> None:
    base = TinyBase(TinyBaseSettings())
    base.guidance_scale = base.target_guidance_scale = 4.0
    slots, encoder = AdapterSlots(base.backbone), Encoder(base, TensorCache(tmp_path / "cache"))
    state = CollectionTeacher(CollectionSettings(path=exported, effect="ink")).adapter(
        teacher_request(tmp_path / "request", base)
    )
    assert state is not None
    slots.mount(state)
    item = effect_items(write_pairs(tmp_path / "pairs", 1), "ink", "draw it")[0]
    example = encoder.example(item, PROMPTS["ink"])
    random = KeyedRandom(5).child("targets")
    generator = ImageGenerator(base, slots, encoder, seed=5, purpose="targets")

    def sample(teacher: AdapterState) -> torch.Tensor:
        config = SamplingConfig.of_teacher(teacher, Schedule(40, 3.0))
        (_, x0, _), *rest = generator.latents(config, [example])
        assert not rest
        return x0

    made = sample(state)
    source, prompt = base.collate([example.source()]), base.collate([example.teacher()])
    with slots.scope(TEACHER), torch.no_grad():
        wanted = few_step(
            predictor(base, source, prompt), SAMPLER,
            lambda step: random.normal((1, *example.shape), "noise", item.key, step, per_rank=False),
        )  # fmt: skip
    assert torch.equal(made, wanted)
    assert not torch.allclose(sample(replace(state, digest="ordinary", few_step=None)), wanted)


def test_another_base_is_refused(exported: Path, tmp_path: Path) -> None:
    base = TinyBase(TinyBaseSettings())
    base.fingerprint = "another"
    source = CollectionTeacher(CollectionSettings(path=exported, effect="ink"))
    with pytest.raises(
        CollectionError, match=r"was made on another base \(tiny-base, fingerprint .*, and this is another\)"
    ):
        source.adapter(teacher_request(tmp_path / "request", base))


@pytest.mark.slow
def test_its_prompts_go_before_those_of_the_isolator(exported: Path, tmp_path: Path) -> None:
    from cldistill.testing import catalogue_with, run_manifest
    from cldistill_plugins.incremental.plugin import register_stream_routers

    effects = [
        {
            "name": name, "prompt": prompt, "pairs": str(write_pairs(tmp_path / name)),
            "teacher": {"use": "collection", "options": {"path": str(exported), "effect": "ink"}} if name == "ink"
            else {"use": "tiny-teacher"},
        }
        for name, prompt in (("ink", "draw it"), ("snow", "let it snow"))
    ]  # fmt: skip
    finished = run_manifest(
        tmp_path / "work", catalogue_with(*register_teacher_sources(), *register_stream_routers()), effects=effects,
        router={"use": "incremental", "options": {"new_effects": ["snow"]}}, steps=3,
    )  # fmt: skip
    assert finished.collection is not None
    ink, snow = json.loads((finished.collection / "effects.json").read_text())["effects"]
    assert ink == {"name": "ink", "trigger": "vexo", "prompt": PROMPTS["ink"].student, "teacher_prompt": "draw it"}
    assert snow["prompt"] == "<snow> let it snow"
