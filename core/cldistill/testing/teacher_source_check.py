"""The check of a teacher source: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from cldistill.adapters.inject import linear_shapes
from cldistill.adapters.slots import AdapterSlots
from cldistill.component import AnyComponent, BuildContext
from cldistill.data.encodings import Encoder
from cldistill.prepare import Preparation
from cldistill.progress.stages import SilentStages
from cldistill.protocols import BaseModel, KnowsDigest, TeacherRequest, TeacherSource
from cldistill.records import EffectInfo
from cldistill.schedule import Schedule
from cldistill.storage.tensors import TensorCache
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.contexts import SoloAccelerator
from cldistill.testing.pictures import write_pairs
from cldistill.testing.tiny_base import TinyBase
from cldistill.weights import AdapterState

if TYPE_CHECKING:
    from accelerate import Accelerator


def teacher_request(
    folder: Path, base: BaseModel | None = None, *, name: str = "invert", prompt: str = "invert the colours"
) -> TeacherRequest:
    """Return what a run gives a teacher source: an effect with small pairs under ``folder``, a base, a cache."""
    base = base or TinyBase()
    effect = EffectInfo(name, prompt, write_pairs(folder / "pairs" / name))
    cache = folder / "cache"
    encoder = Encoder(base, TensorCache(cache / "encodings"))
    preparation = Preparation(
        base=base,
        encoder=encoder,
        schedule=Schedule(4),
        accelerator=cast("Accelerator", SoloAccelerator(torch.device("cpu"))),
        context=BuildContext(root=folder, cache=cache, output=folder / "output", effects=(effect,)),
        stages=SilentStages(),
    )
    preparation.slots.add_teacher(base.adapter_targets)
    return preparation.request(effect)


def check_teacher_source(
    component: AnyComponent, options: Options = None, *, base: BaseModel | None = None, fresh: bool = True
) -> None:
    """Assert that its adapter fits the base, is frozen, is the same when asked for again, and changes what the base does.

    Args:
        base: A base that its adapter is made for; by default a `TinyBase`.
        fresh: See `cldistill.testing.check_component`.
    """
    checker, needs = check_component(component, "teacher_source", options, fresh=fresh)
    settings = read_settings(component, options)
    with scratch_context() as context:
        request = teacher_request(context.root, base)
        source: TeacherSource = component.build(settings, context)
        with checker.leaves_global_random_alone("seed a torch.Generator of its own"):
            state = source.adapter(request)
        if state is None:
            checker.require(needs.rank is None, "describes the rank of an adapter, but returned None (the bare base)")
            return
        again = source.adapter(request)
        checker.require(again is not None and again.digest == state.digest, "asked twice, it gives two digests")
        if isinstance(source, KnowsDigest):
            checker.require(source.digest() == state.digest, "digest() tells another digest than its adapter has")
        _fits(checker, request, state)
        ranks = {weights.rank for weights in state.modules.values()}
        checker.require(needs.rank in (None, max(ranks)), f"describes rank {needs.rank}, but made {sorted(ranks)}")
        slots = request.slots
        slots.mount(state)
        bare, taught = (_predict(request, slots, slot) for slot in (None, "teacher"))
        checker.require(not torch.equal(bare, taught), "its adapter changes nothing that the base predicts")


def _fits(checker: Checker, request: TeacherRequest, state: AdapterState) -> None:
    shapes = linear_shapes(request.base.backbone)
    checker.require(bool(state.modules), "its adapter is empty; return None for the bare base")
    unknown = [name for name in state.modules if name not in shapes]
    checker.require(not unknown, f"adapts modules that the base does not have, {unknown[:1]} for one")
    checker.require(bool(state.digest), "its digest is empty: targets are cached under it")
    tensors = [
        value
        for weights in state.modules.values()
        for value in vars(weights).values()
        if isinstance(value, torch.Tensor)
    ]
    checker.require(not any(value.requires_grad for value in tensors), "its weights require grad: detach them")


def _predict(request: TeacherRequest, slots: AdapterSlots, slot: str | None) -> torch.Tensor:
    base, encoder, item = request.base, request.encoder, request.items[0]
    source = base.collate([encoder.source(item)])
    prompt = base.collate([encoder.prompt(item, item.prompt)])
    x = torch.randn((1, *base.latent_shape(encoder.source(item))), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), slots.scope(slot):
        return base.predict(x, torch.tensor([0.5]), source, prompt)
