"""Faults that show rarely, late, elsewhere, or only in what the engine uses again: the kit must see each of them, too."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from torch import Tensor

from cldistill import testing
from cldistill.component import (
    Forwards,
    Needs,
    Settings,
    base_model,
    loss_term,
    prompt_isolator,
    stream_router,
)
from cldistill.protocols import GuidanceMode, UpdateContext
from cldistill.records import EffectInfo, LossOutput, Prompts, Route, RouteRequest, Tensors
from cldistill.schedule import add_noise
from cldistill.testing import ConformanceError, TinyBase, TinyBaseSettings
from cldistill.testing.tiny_base_settings import describe_tiny_base

torch.set_num_threads(1)


class Nothing(Settings):
    """No options."""


def velocity_error(context: UpdateContext, sigma: Tensor | None = None) -> Tensor:
    """Flow matching on the target at keyed noise: one graded call."""
    target = context.batch.target
    assert target is not None
    noise = context.random.normal(target.shape, "noise")
    sigma = drawn_sigma(context) if sigma is None else sigma
    return (context.student(add_noise(target, noise, sigma), sigma) - (noise - target)).square().mean()


def drawn_sigma(context: UpdateContext) -> Tensor:
    return torch.rand(context.batch.size, generator=context.random.generator("sigma", per_rank=True))


def call(context: UpdateContext) -> Tensor:
    """Call the student once more."""
    target = context.batch.target
    assert target is not None
    return context.student(target, torch.full((context.batch.size,), 0.1)).square().mean()


def extra_by_chance(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if context.random.uniform("more") < 0.02 else 0.0)


def extra_by_data(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if float(drawn_sigma(context)[0]) > 0.97 else 0.0)


def extra_on_a_rank(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if os.environ.get("RANK", "0") != "0" else 0.0)


def extra_by_a_rank_s_draw(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if context.random.uniform("m", per_rank=True) < 0.05 else 0.0)


def extra_every_twenty_steps(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if context.step % 20 == 19 else 0.0)


def extra_after_a_warm_up(context: UpdateContext) -> Tensor:
    return velocity_error(context) + (call(context) if context.step >= 800 else 0.0)


def scaled_rollout(context: UpdateContext) -> Tensor:
    rollout = context.rollout()
    loss = context.student(rollout.x.clone(), rollout.sigma).square().mean()
    rollout.x.mul_(0.5)
    return loss


def scaled_sample(context: UpdateContext) -> Tensor:
    x0 = context.sample().data.clamp_(-0.1, 0.1)
    return context.student(x0, torch.full((context.batch.size,), 0.5)).square().mean()


def scaled_source(context: UpdateContext) -> Tensor:
    loss = velocity_error(context)
    context.batch.student.source["latents"].mul_(0.9)
    return loss


def constant_noise(context: UpdateContext) -> Tensor:
    target = context.batch.target
    assert target is not None
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(42))
    sigma = drawn_sigma(context)
    return (context.student(add_noise(target, noise, sigma), sigma) - (noise - target)).square().mean()


def constant_sigma(context: UpdateContext) -> Tensor:
    return velocity_error(context, torch.rand(context.batch.size, generator=torch.Generator().manual_seed(0)))


def constant_noise_of_the_global_generator(context: UpdateContext) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        noise = torch.randn(context.batch.size, *context.batch.latent_shape)
    return context.student(noise, torch.ones(context.batch.size)).square().mean()


def constant_noise_of_numpy(context: UpdateContext) -> Tensor:
    drawn = np.random.default_rng(0).standard_normal((context.batch.size, *context.batch.latent_shape))
    return context.student(torch.from_numpy(drawn).float(), torch.ones(context.batch.size)).square().mean()


def endless_at_low_sigma(context: UpdateContext) -> Tensor:
    sigma = drawn_sigma(context)
    return velocity_error(context, sigma) * torch.log(sigma - 0.02).mean()


def endless_near_one(context: UpdateContext) -> Tensor:
    sigma = drawn_sigma(context)
    return velocity_error(context, sigma) / (1.0 - (sigma * 1000).round() / 1000).min()


def endless_gradient(context: UpdateContext) -> Tensor:
    loss = velocity_error(context)
    return loss + torch.sqrt(loss * float((drawn_sigma(context) - 0.01).clamp_min(0).min()))


class Late:
    """Weighs its loss less from its 1,000th call on."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, context: UpdateContext) -> Tensor:
        self.calls += 1
        return velocity_error(context) * (1.0 if self.calls < 1000 else 0.5)


def late_closure() -> Callable[[UpdateContext], Tensor]:
    turns = itertools.count()
    return lambda context: velocity_error(context) * (1.0 if next(turns) < 1000 else 0.5)


CALLS = 0


def late_global(context: UpdateContext) -> Tensor:
    global CALLS
    CALLS += 1
    return velocity_error(context) * (1.0 if CALLS < 1000 else 0.5)


class Cached:
    """Keeps what is a function of the batch alone: no fault."""

    def __init__(self) -> None:
        self.weights: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, context: UpdateContext) -> Tensor:
        shape = context.batch.latent_shape
        if shape not in self.weights:
            self.weights[shape] = torch.ones(math.prod(shape))
        return velocity_error(context) * self.weights[shape].mean()


def term(loss: Callable[[UpdateContext], Tensor], **forwards: Any) -> Any:
    declared = Needs(slot="student", targets=True, forwards=Forwards(**({"graded": 1} | forwards)))
    return loss_term(
        "faulty", "has a fault", Nothing, lambda s: declared, lambda s, c: lambda update: LossOutput(loss(update))
    )


@pytest.mark.slow
def test_a_term_that_caches_what_the_batch_decides_passes() -> None:
    testing.check_loss_term(term(Cached()), fresh=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "message"),
    [
        (term(extra_by_chance), r"Forwards\(graded=1\), but an update had graded=2 .*chance, data, step nor rank"),
        (term(extra_by_data), "an update had graded=2"),
        (term(extra_on_a_rank), r"an update had graded=2 \(step \d+, rank [12]"),
        (term(extra_by_a_rank_s_draw), "an update had graded=2"),
        (term(extra_every_twenty_steps), r"an update had graded=2 \(step \d*[13579]9, rank"),
        (term(extra_after_a_warm_up), r"an update had graded=2 \(step \d{3,}, rank"),
        (term(scaled_rollout, rollout=True), r"changed context.rollout\(\).x in place"),
        (term(scaled_sample, rollout=True, sample=1), r"changed context.sample\(\) in place"),
        (term(scaled_source), r"changed context.batch.student.source\['latents'\] in place"),
        (term(constant_noise), "constant seed .* draw from context.random"),
        (term(constant_sigma), "constant seed"),
        (term(constant_noise_of_the_global_generator), "constant seed"),
        (term(constant_noise_of_numpy), "constant seed"),
        (term(endless_at_low_sigma), "its loss is nan on ordinary numbers .*called at sigma 0.0"),
        (term(endless_near_one), "its loss is inf on ordinary numbers .*0.999"),
        (term(endless_gradient), "gradient in slot 'student' is not finite .*at sigma"),
        (term(Late()), "changes .*calls with each call: keep no state"),
        (term(late_closure()), r"changes .*closure turns\) with each call"),
        (term(late_global), r"changes .*global CALLS\) with each call"),
    ],
)  # fmt: skip
def test_each_rare_fault_of_a_loss_is_named(component: Any, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        testing.check_loss_term(component, fresh=False)


def one_of(effects: Sequence[str], number: int) -> Route:
    return Route("effect", {effects[number % len(effects)]: 1.0})


class Salted:
    """Draws by the salted hash of text."""

    def route(self, request: RouteRequest) -> Route:
        return one_of(request.effects, hash(f"{request.effects[0]}/{request.step}"))


class SaltedTuple:
    """Draws by the salted hash of a tuple."""

    def route(self, request: RouteRequest) -> Route:
        return one_of(request.effects, hash((request.effects[0], request.step)))


class Environmental:
    """Takes a share from the environment when it is built."""

    def __init__(self) -> None:
        self.share = float(os.environ.get("ROUTER_SHARE", "0.5"))

    def route(self, request: RouteRequest) -> Route:
        return one_of(request.effects, int(request.random.uniform("effect") > self.share))


class RankOfTheLauncher:
    """Gives each process its own effect."""

    def route(self, request: RouteRequest) -> Route:
        return one_of(request.effects, int(os.getenv("LOCAL_RANK", "0")) + request.step)


class Timed:
    """Draws by the clock."""

    def route(self, request: RouteRequest) -> Route:
        return one_of(request.effects, time.perf_counter_ns())


class Rare:
    """Yields a stream that it does not describe, once in 5,000 updates."""

    def route(self, request: RouteRequest) -> Route:
        return Route("bonus" if request.random.uniform("bonus") < 2e-4 else "effect", {request.effects[0]: 1.0})


class Eventual:
    """Yields a stream that it does not describe from step 2,000 on."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect" if request.step < 2000 else "fine", {request.effects[0]: 1.0})


class LateTurns:
    """Takes turns instead of drawing, but not before its 5,000th call."""

    def __init__(self) -> None:
        self.turn = 0

    def route(self, request: RouteRequest) -> Route:
        self.turn += 1
        return one_of(request.effects, request.step if self.turn < 5000 else self.turn)


EFFECT_STREAM = Needs(streams=frozenset({"effect"}))


@pytest.mark.parametrize(
    ("router", "needs", "message"),
    [
        (Salted, EFFECT_STREAM, r"depends on hash\(\): Python salts"),
        (SaltedTuple, EFFECT_STREAM, r"depends on hash\(\): Python salts"),
        (Environmental, EFFECT_STREAM, "environment variable ROUTER_SHARE: make it an option"),
        (RankOfTheLauncher, EFFECT_STREAM, "environment variable LOCAL_RANK"),
        (Timed, EFFECT_STREAM, "another order of calls"),
        (Rare, EFFECT_STREAM, r"yields the stream 'bonus' in step \d+, but describes \['effect'\]"),
        (Eventual, EFFECT_STREAM, "yields the stream 'fine' in step 2000, but describes"),
        (Rare, Needs(), r"describe must name the streams .* Needs\(streams=frozenset"),
        (LateTurns, EFFECT_STREAM, "changes .*turn with each call: keep no state"),
    ],
)
def test_each_rare_fault_of_a_router_is_named(router: Callable[[], Any], needs: Needs, message: str) -> None:
    component = stream_router("faulty", "has a fault", Nothing, lambda s: needs, lambda s, c: router())
    with pytest.raises(ConformanceError, match=message):
        testing.check_stream_router(component, fresh=False)


SET_ROUTER = """
from cldistill.component import Needs, Settings, stream_router
from cldistill.records import Route
class Options(Settings): pass
class Router:
    def route(self, request):
        return Route("effect", {list(set(request.effects))[request.random.integer(len(request.effects), "effect")]: 1.0})
def describe(settings): return Needs(streams=frozenset({"effect"}))
def build(settings, context): return Router()
component = stream_router("faulty", "draws from a set", Options, describe, build)
"""


@pytest.mark.slow
def test_a_route_that_hangs_on_the_order_of_a_set_is_seen_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_router_from_a_set.py").write_text(SET_ROUTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConformanceError, match=r"another process gets other routes: Python salts .*sorted"):
        testing.check_stream_router(import_module("a_router_from_a_set").component)


class SaltedTriggers:
    """Makes a word of an effect's salted hash."""

    def isolate(self, effect: EffectInfo) -> Prompts:
        trigger = f"zq{abs(hash(effect.name)) % 10**9}x"
        return Prompts(f"{trigger} {effect.prompt}", effect.prompt, trigger=trigger)

    def general(self, instruction: str) -> Prompts:
        return Prompts(instruction, instruction)


def test_triggers_of_the_salted_hash_are_named() -> None:
    component = prompt_isolator("faulty", "has a fault", Nothing, lambda s: Needs(), lambda s, c: SaltedTriggers())
    with pytest.raises(ConformanceError, match=r"depends on hash\(\)"):
        testing.check_prompt_isolator(component, fresh=False)


class EndlessAtLowSigma(TinyBase):
    """Converts from another parameterisation, and divides by what vanishes."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        v = super().predict(x, sigma, source, prompt)
        return v / (sigma > 0.005).float().reshape(-1, *[1] * (v.ndim - 1))


class EndlessAtOne(TinyBase):
    """Divides by 1 - sigma, which is 0 where sampling starts."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        v = super().predict(x, sigma, source, prompt)
        rest = (1 - sigma).reshape(-1, *[1] * (v.ndim - 1))
        return v * rest / rest


class Scaling(TinyBase):
    """Scales its latents in place."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        v = super().predict(x, sigma, source, prompt)
        x.mul_(0.5)
        return v


class Muting(TinyBase):
    """Zeroes the padding of prompts in place, and a little more."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        v = super().predict(x, sigma, source, prompt)
        prompt["embeds"][:, -1] = 0
        return v


class Guiding(TinyBase):
    """Combines velocities in place."""

    def guide(self, conditional: Tensor, unconditional: Tensor, scale: float, mode: GuidanceMode) -> Tensor:
        guided = super().guide(conditional.clone(), unconditional.clone(), scale, mode)
        unconditional.copy_(guided)
        return guided


class Clamping(TinyBase):
    """Clamps latents in place before it decodes them."""

    def decode(self, x0: Tensor, source: Tensors) -> list[Image]:
        return super().decode(x0.mul_(0.5), source)


class Shrinking(TinyBase):
    """Shrinks the picture that it is given."""

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        encoded = super().encode_source(pictures)
        pictures[0].paste((0, 0, 0), (0, 0, 1, 1))
        return encoded


class SaltedFingerprint(TinyBase):
    """Names its cache by the salted hash of its settings' text."""

    def __init__(self, settings: TinyBaseSettings) -> None:
        super().__init__(settings)
        self.fingerprint = str(hash(settings.model_dump_json()))


def check_base(kind: Callable[[TinyBaseSettings], TinyBase], idle: Sequence[str] = ()) -> None:
    def describe(settings: TinyBaseSettings) -> Needs:
        described = describe_tiny_base(settings).base
        assert described is not None
        return Needs(base=replace(described, idle=tuple(idle)) if idle else described)

    component = base_model("faulty", "has a fault", TinyBaseSettings, describe, lambda s, c: kind(s))
    testing.check_base_model(component, fresh=False)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (EndlessAtLowSigma, "not finite at sigma 0.0001, 0.001; every sigma"),
        (EndlessAtOne, "not finite at sigma 1; every sigma .*guard divisions"),
        (Scaling, "predict changes x in place"),
        (Muting, r"predict changes prompt\['embeds'\] in place"),
        (Guiding, "guide changes unconditional in place"),
        (Clamping, "decode changes x0 in place"),
        (Shrinking, "encode_source changes its picture in place"),
        (SaltedFingerprint, r"its fingerprint depends on hash\(\)"),
    ],
)
def test_each_rare_fault_of_a_base_is_named(faulty: type[TinyBase], message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        check_base(faulty)


def test_a_base_that_names_the_wrong_idle_targets_is_named() -> None:
    with pytest.raises(ConformanceError, match=r"'blocks.0.to_q'.* as idle, but adapting it changes"):
        check_base(TinyBase, ["blocks.0.to_q"])
    with pytest.raises(ConformanceError, match=r"'x_in'.* as idle, which is none of its targets"):
        check_base(TinyBase, ["x_in"])


class Unread(TinyBase):
    """Has targets that reach nothing: the last block's MLP is left out."""

    def __init__(self, settings: TinyBaseSettings) -> None:
        super().__init__(settings)
        last: Any = self.network.blocks[-1]
        last.forward = lambda x, known, mask: x + last.to_out(last.to_v(x) + last.to_q(x) * last.to_k(x))


@pytest.mark.slow
def test_targets_without_effect_are_named_unless_they_are_described_as_idle() -> None:
    with pytest.raises(ConformanceError, match=r"adapting 2 of its targets has no effect.*BaseDescription.idle"):
        check_base(Unread)
    check_base(Unread, ["blocks.1.up", "blocks.1.down"])
