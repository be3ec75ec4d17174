"""Each fault that the kit looks for, in a part that has just this one: the kit must see it and say what to change."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

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
    observer,
    prompt_isolator,
    stream_router,
    teacher_source,
)
from cldistill.markers import hookimpl
from cldistill.protocols import UpdateContext
from cldistill.records import GENERAL, EffectInfo, LossOutput, Prompts, Route, RouteRequest, Tensors
from cldistill.testing import ConformanceError, TinyBase, TinyBaseSettings
from cldistill.testing.tiny_base_settings import describe_tiny_base

torch.set_num_threads(1)


class Nothing(Settings):
    """No options."""


class Loose(Settings, extra="allow"):
    """Settings that swallow misspelt options."""


def good(context: UpdateContext) -> Tensor:
    """Flow matching on noise: one graded call."""
    x = context.random.normal((context.batch.size, *context.batch.latent_shape), "x")
    v = context.student(x, torch.full((context.batch.size,), 0.5))
    return (v - x).square().mean()


def no_graph(context: UpdateContext) -> Tensor:
    with torch.no_grad():
        return good(context)


def per_sample(context: UpdateContext) -> Tensor:
    return good(context) * torch.ones(2)


def half(context: UpdateContext) -> Tensor:
    return good(context).bfloat16()


def infinite(context: UpdateContext) -> Tensor:
    return good(context) / 0.0


def global_random(context: UpdateContext) -> Tensor:
    return good(context) * (1 + torch.rand(()))


def twice(context: UpdateContext) -> Tensor:
    return good(context) + good(context)


def teaches(context: UpdateContext) -> Tensor:
    x = context.random.normal((context.batch.size, *context.batch.latent_shape), "x")
    return good(context) + context.teacher(x, torch.full((context.batch.size,), 0.5)).mean()


def unasked_target(context: UpdateContext) -> Tensor:
    return good(context) * context.batch.target.mean()  # type: ignore[union-attr]


def tokens_only(context: UpdateContext) -> Tensor:
    loss = good(context)
    assert len(context.batch.latent_shape) == 2, "expected [L, C]"
    return loss


class Stateful:
    """Keeps a running mean of its losses."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, context: UpdateContext) -> Tensor:
        self.calls += 1
        return good(context) / self.calls


def term(loss: Callable[[UpdateContext], Tensor], settings: type[Settings] = Nothing, **needs: Any) -> Any:
    declared = Needs(**({"slot": "student", "forwards": Forwards(graded=1)} | needs))

    def build(settings: Settings, context: object) -> Callable[[UpdateContext], LossOutput]:
        return lambda update: LossOutput(loss(update))

    return loss_term("faulty", "a loss with a fault", settings, lambda s: declared, build)


@pytest.mark.slow
def test_a_loss_without_fault_passes() -> None:
    testing.check_loss_term(term(good), fresh=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "message"),
    [
        (term(no_graph), "no graph"),
        (term(per_sample), "must be a scalar"),
        (term(half), "compute it in fp32"),
        (term(infinite), "inf on ordinary numbers"),
        (term(global_random), "global generator of torch.*context.random"),
        (term(twice), r"Forwards\(graded=1\), but an update had graded=2"),
        (term(teaches, forwards=Forwards(graded=1, teacher=1)), "teacher=False, but the teacher was called"),
        (term(Stateful()), "keep no state between calls"),
        (term(good, slot="critic", forwards=Forwards(graded=0, plain=1)), "no graph"),
        (term(good, predicts=frozenset({"critic"})), "predicts .'critic'., which it never called"),
        (term(unasked_target), r"stumbles over a None .*Needs\(targets=True\)"),
        (term(good, settings=Loose), "extra='forbid'"),
    ],
)  # fmt: skip
def test_each_fault_of_a_loss_is_named(component: Any, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        testing.check_loss_term(component, fresh=False)


def test_a_loss_that_assumes_the_shape_of_latents_fails() -> None:
    with pytest.raises(AssertionError, match=r"expected \[L, C\]"):
        testing.check_loss_term(term(tokens_only), fresh=False)


@pytest.mark.slow
def test_a_part_whose_description_imports_heavy_packages_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peft.py").write_text("")  # stands for the real one in the interpreter that is started
    (tmp_path / "heavy_part.py").write_text(
        "import peft\n"
        "from cldistill.component import Needs, Settings, observer\n"
        "class Options(Settings): pass\n"
        "def describe(settings): return Needs()\n"
        "def build(settings, context): return None\n"
        "component = observer('heavy', 'imports peft', Options, describe, build)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConformanceError, match="its modules import peft"):
        testing.check_component(import_module("heavy_part").component, "observer", None)


class Unstable(TinyBase):
    """Encodes with noise."""

    def encode_source(self, pictures: Sequence[Image]) -> Tensors:
        source = super().encode_source(pictures)
        return {**source, "latents": source["latents"] + torch.randn(()) * 0.1}


class Leaky(TinyBase):
    """Attends to the padding of prompts."""

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        collated = super().collate(rows)
        return {n: torch.ones_like(v) if n == "mask" else v for n, v in collated.items()}


class Deaf(TinyBase):
    """Does not hear prompts."""

    def predict(self, x: Tensor, sigma: Tensor, source: Tensors, prompt: Tensors) -> Tensor:
        silence = {"embeds": prompt["embeds"][:, :1] * 0, "mask": prompt["mask"][:, :1]}
        return super().predict(x, sigma, source, silence)


class Upright(TinyBase):
    """Takes portrait and landscape for one, as their latents have one shape."""

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        return self.latent_shape(source)


class Confused(Upright):
    """And collates them, too."""

    def collate(self, rows: Sequence[Tensors]) -> Tensors:
        if "grids" in rows[0]:
            return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return super().collate(rows)


class Picky(Confused):
    """Gives each picture a key of its own."""

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        return (*source["grids"].flatten().tolist(), int(source["latents"].sum() * 1000))


class Tensorial(Confused):
    """Gives numbers that are no plain integers."""

    def batch_key(self, source: Tensors) -> tuple[int, ...]:
        return tuple(source["grids"].flatten())  # type: ignore[arg-type]


class Unfaithful(TinyBase):
    """Names a target outside the described ones."""

    def __init__(self, settings: TinyBaseSettings) -> None:
        super().__init__(settings)
        self.adapter_targets = (*self.adapter_targets, "x_in")


class Unpinned(TinyBase):
    """Ignores gradient checkpointing."""

    def enable_gradient_checkpointing(self, run: Callable[..., Any]) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (Unstable, "encode deterministically"),
        (Leaky, "mask the padding"),
        (Deaf, "does not depend on prompt"),
        (Upright, "one batch_key .* cannot be collated"),
        (Confused, "cannot be collated|other results in a batch"),
        (Picky, "batch_key differs for two pictures of one size"),
        (Tensorial, "tuple of plain integers"),
        (Unfaithful, "adapter_targets differ"),
        (Unpinned, "must call each block through run"),
    ],
)
def test_each_fault_of_a_base_is_named(faulty: type[TinyBase], message: str) -> None:
    component = base_model("faulty", "has a fault", TinyBaseSettings, describe_tiny_base, lambda s, c: faulty(s))
    with pytest.raises(ConformanceError, match=message):
        testing.check_base_model(component, fresh=False)


class Counting:
    """Takes turns instead of drawing."""

    def __init__(self) -> None:
        self.turn = 0

    def route(self, request: RouteRequest) -> Route:
        self.turn += 1
        return Route("effect", {request.effects[self.turn % len(request.effects)]: 1.0})


class PerRank:
    """Draws per rank, as it must not."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {request.effects[request.random.integer(len(request.effects), "e", per_rank=True)]: 1.0})


class Undeclared:
    """Draws from the general pool without saying so."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {GENERAL: 1.0})


class Elsewhere:
    """Draws general items on a stream that it does not name."""

    def route(self, request: RouteRequest) -> Route:
        return Route("effect", {request.effects[0]: 0.5, GENERAL: 0.5})


class ForLonger:
    """Says that a stream ends at step 10, and yields it for one step more."""

    def route(self, request: RouteRequest) -> Route:
        return Route("mixed" if request.step < 11 else "effect", {request.effects[0]: 1.0})


class TooEarly:
    """Says that a stream begins at step 5, and yields it at once."""

    def route(self, request: RouteRequest) -> Route:
        return Route("late", {request.effects[0]: 1.0})


class Narrow:
    """Says that the stream 'few' has one effect, and draws another there."""

    def route(self, request: RouteRequest) -> Route:
        return Route("few", {request.effects[1]: 1.0})


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Counting, "another rank, or another order"),
        (PerRank, "another rank"),
        (Undeclared, "describe must say general=True"),
        (Elsewhere, "draws general items on the stream 'effect', which describe must name in general_streams"),
        (TooEarly, "yields the stream 'late' in step 0, but describes that it begins at 5"),
        (Narrow, "on the stream 'few', on which describe's pools say that they never come up"),
        (ForLonger, "yields the stream 'mixed' in step 10, but describes that it ends at 10"),
    ],
)
def test_each_fault_of_a_router_is_named(router: Callable[[], Any], message: str) -> None:
    general = router is Elsewhere
    needs = Needs(
        streams=frozenset({"effect", "mixed", "late", "few"}), ends={"mixed": 10}, begins={"late": 5}, general=general,
        pools={"few": frozenset({"none"})},
    )  # fmt: skip
    component = stream_router("faulty", "has a fault", Nothing, lambda s: needs, lambda s, c: router())
    with pytest.raises(ConformanceError, match=message):
        testing.check_stream_router(component, fresh=False)


class Numbered:
    """Numbers the effects of the run, so that an added one renames the others."""

    def __init__(self, effects: Sequence[EffectInfo]) -> None:
        self.names = sorted(effect.name for effect in effects)

    def isolate(self, effect: EffectInfo) -> Prompts:
        trigger = f"[{self.names.index(effect.name)}]"
        return Prompts(f"{trigger} {effect.prompt}", effect.prompt, trigger=trigger)

    def general(self, instruction: str) -> Prompts:
        return Prompts(instruction, instruction)


class Alike(Numbered):
    """Gives all effects one trigger."""

    def isolate(self, effect: EffectInfo) -> Prompts:
        return Prompts(f"zz {effect.prompt}", effect.prompt, trigger="zz")


@pytest.mark.parametrize(("isolator", "message"), [(Numbered, "adding effects changes"), (Alike, "not distinct")])
def test_each_fault_of_an_isolator_is_named(isolator: type[Numbered], message: str) -> None:
    component = prompt_isolator("faulty", "has a fault", Nothing, lambda s: Needs(), lambda s, c: isolator(c.effects))
    with pytest.raises(ConformanceError, match=message):
        testing.check_prompt_isolator(component, fresh=False)


def test_a_teacher_that_differs_when_asked_again_is_named() -> None:
    class Restless:
        def adapter(self, request: Any) -> Any:
            Restless.asked = getattr(Restless, "asked", 0) + 1  # type: ignore[attr-defined]
            return testing.random_adapter(request.base, Restless.asked)  # type: ignore[attr-defined]

    component = teacher_source("faulty", "has a fault", Nothing, lambda s: Needs(), lambda s, c: Restless())
    with pytest.raises(ConformanceError, match="two digests"):
        testing.check_teacher_source(component, fresh=False)


def test_a_teacher_whose_digest_is_told_wrongly_is_named() -> None:
    class Mistaken:
        def adapter(self, request: Any) -> Any:
            return testing.random_adapter(request.base, "same")

        def digest(self) -> str:
            return "another"

    component = teacher_source("faulty", "has a fault", Nothing, lambda s: Needs(), lambda s, c: Mistaken())
    with pytest.raises(ConformanceError, match="another digest"):
        testing.check_teacher_source(component, fresh=False)


class Misnamed:
    """Has a hook that nobody calls."""

    @hookimpl
    def step_ended(self, run: object) -> None: ...


class Unmarked:
    """Forgot a marker."""

    @hookimpl
    def run_started(self, run: object) -> None: ...

    def step_finished(self, run: object, result: object) -> None: ...


class Drawing:
    """Draws from Python's global generator."""

    @hookimpl
    def run_started(self, run: object) -> None:
        random.random()


@pytest.mark.parametrize(
    ("watcher", "message"),
    [(Misnamed, "RunHooks"), (Unmarked, "step_finished.*lack the marker"), (Drawing, "global generator of random")],
)
def test_each_fault_of_an_observer_is_named(watcher: Callable[[], object], message: str) -> None:
    component = observer("faulty", "has a fault", Nothing, lambda s: Needs(), lambda s, c: watcher())
    with pytest.raises(ConformanceError, match=message):
        testing.check_observer(component, fresh=False)
