"""What a loss term promises."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from cldistill.assemble import make_modules
from cldistill.component import AnyComponent, Needs, RunOutline
from cldistill.protocols import BaseModel, LossTerm
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, LossOutput, find_block
from cldistill.testing.conformance import OUTLINE, Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.contexts import ObservedContext, tiny_run, update_context
from cldistill.testing.tiny_plugin import register_base_models
from cldistill.training.run import Run, Term
from cldistill.training.update import STUDENT, TEACHER

(TINY_BASE,) = register_base_models()

SEEDS = (0, 1, 2)
"""Enough for rollouts of different depth."""


def check_loss_term(
    component: AnyComponent, options: Options = None, *, through: Collection[str] = (),
    beside: Collection[AnyComponent] = (), base: AnyComponent = TINY_BASE, base_options: Options = None, fresh: bool = True,
) -> None:  # fmt: skip
    """Assert all that the engine relies on.

    The loss is a finite fp32 scalar with a graph; its gradient reaches the slot that the term trains and no other; the
    same key gives the same bits, whatever was computed before; the calls of the backbone are those that `Needs` declares;
    neither weights nor targets change; and any shape of latents and any batch size will do.

    Args:
        through: Slots through which gradient flows by design (a discriminator that judges the student's output).
        beside: Terms whose modules it calls (`Needs.modules`), each with its default options.
        base: Base model on which it is tried, with ``base_options``; by default the tiny one, in both of its layouts.
        fresh: See `cldistill.testing.check_component`.
    """
    layouts: tuple[Options, ...] = (base_options, base_options)
    if base is TINY_BASE and base_options is None:
        layouts = ({"layout": "tokens", "guidance_scale": 1.0}, {"layout": "image", "guidance_scale": 3.0})
    for chosen, size in zip(layouts, (2, 1), strict=True):
        shown = read_settings(base, chosen)
        outline = RunOutline(OUTLINE.steps, base.needs(shown, RunOutline()).base)
        checker, needs = check_component(component, "loss_term", options, fresh=fresh and size == 2, outline=outline)
        with scratch_context(outline=outline) as context:
            loss: LossTerm = component.build(read_settings(component, options), context)
            named = [(component.name, loss), *((o.name, o.build(read_settings(o, None), context)) for o in beside)]
            modules = make_modules([Term(name, term, STUDENT) for name, term in named], KeyedRandom(0))
            for stream in sorted(needs.streams or {"effect", GENERAL}):
                model: BaseModel = base.build(shown, context)
                run = tiny_run(model, slots=_slots(needs), modules=modules)
                _Case(checker, needs, loss, run, stream, size, component.name).check(set(through))


def _slots(needs: Needs) -> tuple[str, ...]:
    return tuple(sorted({STUDENT, needs.slot or STUDENT, *needs.predicts}))


class _Case:
    """The term on one base and one stream, looked at from all sides."""

    def __init__(
        self, checker: Checker, needs: Needs, loss: LossTerm, run: Run, stream: str, size: int, name: str
    ) -> None:
        self.checker, self.needs, self.loss, self.run, self.name = checker, needs, loss, run, name
        self.stream, self.size, self.guidance = stream, size, run.base.guidance_scale
        self.trains, self.slots = needs.slot or STUDENT, _slots(needs)
        owned = run.modules.get(name)
        self.own = [] if owned is None else list(owned.module.parameters())
        brought = sum(parameter.numel() for parameter in self.own)
        checker.require(
            brought == needs.parameters,
            f"describe says parameters={needs.parameters}, but its module has {brought}: `plan` lists them",
        )

    def context(self, seed: int) -> ObservedContext:
        weights = [p for slot in self.slots for p in self.run.slots.parameters(slot).values()]
        for parameter in (*weights, *self.own):
            parameter.grad = None
        return update_context(
            run=self.run,
            trains=self.trains,
            stream=self.stream,
            size=self.size,
            seed=seed,
            targets=self.needs.targets,
            term=self.name,
        )

    def check(self, through: set[str]) -> None:
        losses = [self._evaluate(seed, through) for seed in SEEDS]
        again = self.loss(self.context(SEEDS[0])).loss.detach()
        self.checker.require(
            torch.equal(again, losses[0]),
            "gave another loss for the same update: draw everything from context.random, and keep no state between calls "
            "(it would be lost when a run is resumed)",
        )

    def _evaluate(self, seed: int, through: set[str]) -> Tensor:
        context = self.context(seed)
        weights = {slot: context.run.slots.state(slot) for slot in self.slots}
        target = None if context.batch.target is None else context.batch.target.clone()
        with self.checker.leaves_global_random_alone("draw from context.random"):
            output = self.loss(context)
        self._output(output)
        self._calls(context)
        with context.run.slots.scope(self.trains):
            output.loss.backward()  # type: ignore[no-untyped-call]
        self._gradients(context, through)
        for slot, before in weights.items():
            same = all(torch.equal(value, before[name]) for name, value in context.run.slots.state(slot).items())
            self.checker.require(same, f"changed the weights of slot {slot!r}; only the optimiser may")
        unchanged = target is None or (context.batch.target is not None and torch.equal(target, context.batch.target))
        self.checker.require(unchanged, "changed context.batch.target in place; work on a copy")
        return output.loss.detach()

    def _output(self, output: LossOutput) -> None:
        require = self.checker.require
        require(isinstance(output, LossOutput), f"must return LossOutput(loss, metrics), not {type(output).__name__}")
        loss: Tensor = output.loss
        require(loss.ndim == 0, f"its loss must be a scalar, the mean over the batch; it has shape {tuple(loss.shape)}")
        require(loss.dtype == torch.float32, f"its loss is {loss.dtype}; compute it in fp32 (.float() before squaring)")
        require(math.isfinite(float(loss.detach())), f"its loss is {float(loss.detach())} on ordinary numbers")
        require(
            loss.requires_grad,
            f"its loss has no graph: call context.student (or context.slot({self.trains!r}, ...)) outside torch.no_grad()",
        )
        for name, value in output.metrics.items():
            plain = isinstance(value, (int, float)) and math.isfinite(value)
            require(plain, f"its metric {name!r} must be a finite plain number, not {value!r}: use float(...)")

    def _calls(self, context: ObservedContext) -> None:
        require, needs, declared = self.checker.require, self.needs, self.needs.forwards
        own = [call for call in context.calls if call.origin == "term"]
        counts = {
            "rollout": context.memo.rollout is not None,
            "sample": sum(call.origin == "sample" for call in context.calls),
            "shared": len(context.memo.graded),
            "graded": sum(call.graded and call.slot != TEACHER for call in own),
            "plain": sum(not call.graded and call.slot != TEACHER for call in own),
            "teacher": sum(call.slot == TEACHER for call in own) // (1 if self.guidance == 1.0 else 2),
        }
        for name, made in counts.items():
            said = getattr(declared, name)
            require(
                made == said,
                f"describe says Forwards({name}={said!r}), but an update had {name}={made!r}: `plan` counts on it, and all "
                "ranks must make the same calls",
            )
        asked = any(call.slot == TEACHER for call in own)
        require(
            asked == needs.teacher,
            f"describe says teacher={needs.teacher}, but the teacher was{'' if asked else ' not'} called",
        )
        asked_at = {call.at for call in own} - {None}
        described = {find_block(self.run.base.blocks, at) for at in needs.features}
        require(
            asked_at == described,
            f"describe says features={needs.features}, but an update asked for those of {sorted(map(str, asked_at))}",
        )
        called = {call.slot for call in own} - {TEACHER, STUDENT, self.trains}
        unused = needs.predicts - {call.slot for call in own}
        require(not unused, f"describe says that it predicts {sorted(unused)}, which it never called")
        require(called <= needs.predicts, f"called {sorted(called - needs.predicts)}, which describe's predicts lacks")

    def _gradients(self, context: ObservedContext, through: set[str]) -> None:
        require = self.checker.require
        for slot in self.slots:
            grads = [p.grad for p in context.run.slots.parameters(slot).values() if p.grad is not None]
            reached = any(bool((grad != 0).any()) for grad in grads)
            finite = all(bool(grad.isfinite().all()) for grad in grads)
            require(finite, f"its gradient in slot {slot!r} is not finite: guard divisions and roots with an eps")
            if slot == self.trains:
                learns = any(p.grad is not None and bool((p.grad != 0).any()) for p in self.own)
                require(reached or learns, f"its gradient does not reach slot {slot!r}, which it trains")
            elif slot not in through:
                require(
                    not reached,
                    f"leaves gradients in slot {slot!r}, which it does not train: call that slot on x.detach() or under "
                    "torch.no_grad() (or say through={...} if it is meant)",
                )
        frozen = [
            name
            for name, p in context.run.base.backbone.named_parameters()
            if p.grad is not None and "lora" not in name
        ]
        require(not frozen, f"leaves gradients in the frozen backbone ({frozen[:1]}): leave requires_grad alone")
