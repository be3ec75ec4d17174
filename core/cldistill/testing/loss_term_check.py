"""The check of a loss term: all that the engine relies on, asserted on small material for its author's tests."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from cldistill.adapters.slots import TEACHER
from cldistill.assemble import make_modules
from cldistill.component import AnyComponent, Needs, RunOutline
from cldistill.protocols import BaseModel, LossTerm
from cldistill.random import KeyedRandom
from cldistill.records import GENERAL, STUDENT, LossOutput, find_block
from cldistill.testing.conformance import Checker, Options, check_component, read_settings, scratch_context
from cldistill.testing.contexts import ObservedContext, on_rank, tensors_of, tiny_batch, tiny_run, update_context
from cldistill.testing.elsewhere import OUTLINE
from cldistill.testing.extreme_random import TURNS, Draws, ExtremeRandom
from cldistill.testing.held_state import changed_state, held_state
from cldistill.testing.tiny_plugin import register_base_models
from cldistill.training.run import Run, Term

(TINY_BASE,) = register_base_models()

SEEDS = (0, 1, 2)
"""Enough for rollouts of different depth."""
STEPS = (
    *range(24), 24, 25, 29, 31, 32, 39, 40, 49, 50, 63, 64, 99, 100, 127, 128, 199, 200, 249, 250, 255, 256, 499, 500, 511,
    512, 749, 999, 1000, 1001, 1023, 1024, 1999, 2000, 2500, 4095, 4096, 4999, 5000, 10_000, 100_000,
)  # fmt: skip
"""Steps of `TURNS` updates in which each uniform draw comes from another part of its range."""


def check_loss_term(
    component: AnyComponent, options: Options = None, *, through: Collection[str] = (),
    beside: Collection[AnyComponent] = (), base: AnyComponent = TINY_BASE, base_options: Options = None, fresh: bool = True,
) -> None:  # fmt: skip
    """Assert all that the engine relies on.

    The loss is a finite fp32 scalar with a graph, at every sigma that is drawn; its gradient reaches the slot that the
    term trains and no other; the same key gives the same bits, whatever was computed before, and another key other noise;
    the calls of the backbone are those that `Needs` declares, on every rank and in every step; neither weights nor batch,
    rollout or sample change; nothing is kept between calls; and any shape of latents and any batch size will do.

    Args:
        through: Slots through which gradient flows by design (a discriminator that judges the student's output).
        beside: Terms whose modules it calls (`Needs.modules`), each with its default options.
        base: Base model on which it is tried, with ``base_options``; by default the tiny one, in both of its layouts.
        fresh: See `cldistill.testing.check_component`.
    """
    layouts: tuple[Options, ...] = (base_options, base_options)
    if base is TINY_BASE and base_options is None:
        layouts = tuple(
            {"layout": layout, "guidance_scale": guidance, "layers": 1}
            for layout, guidance in (("tokens", 1.0), ("image", 3.0))
        )
    cases = []
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
                cases.append(_Case(checker, needs, loss, run, stream, size, component.name))
                cases[-1].check(set(through))
    for turn in range(TURNS):
        cases[turn % len(cases)].extreme(turn, set(through))
    for case in cases:
        case.stateless()


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
        run.total_steps = STEPS[-1] + 1
        self.batch = tiny_batch(run.base, stream, size, targets=needs.targets)
        self.first = torch.empty(())
        owned = run.modules.get(name)
        self.own = [] if owned is None else list(owned.module.parameters())
        brought = sum(parameter.numel() for parameter in self.own)
        checker.require(
            brought == needs.parameters,
            f"describe says parameters={needs.parameters}, but its module has {brought}: `plan` lists them",
        )

    def context(self, seed: int, step: int = 0, random: KeyedRandom | None = None) -> ObservedContext:
        weights = [p for slot in self.slots for p in self.run.slots.parameters(slot).values()]
        for parameter in (*weights, *self.own):
            parameter.grad = None
        self.run.random = random or KeyedRandom(0)
        return update_context(run=self.run, trains=self.trains, seed=seed, step=step, batch=self.batch, term=self.name)

    def check(self, through: set[str]) -> None:
        drawn: dict[str, int] = {}
        for seed in SEEDS:
            with Draws() as draws:
                loss = self._evaluate(self.context(seed), through)
            self.first = loss if seed == SEEDS[0] else self.first
            self._fresh_noise(drawn, draws)
        self._same_again()

    def extreme(self, turn: int, through: set[str]) -> None:
        """Evaluate in another step and on another rank, with draws from another part of their range."""
        rank = turn % 3
        with on_rank(self.run, rank):
            self._evaluate(self.context(turn, STEPS[turn], ExtremeRandom(1, rank, turn=turn)), through)

    def stateless(self) -> None:
        self._same_again()
        before = held_state(self.loss)
        self._same_again()
        kept = changed_state(before, held_state(self.loss))
        self.checker.require(
            kept is None,
            f"changes {kept} with each call: keep no state between calls (it would be lost when a run is resumed); "
            "what depends on progress is a function of context.step",
        )

    def _same_again(self) -> None:
        self.checker.require(
            torch.equal(self.loss(self.context(SEEDS[0])).loss.detach(), self.first),
            "gave another loss for the same update: draw everything from context.random, and keep no state between calls "
            "(it would be lost when a run is resumed)",
        )

    def _fresh_noise(self, before: dict[str, int], draws: Draws) -> None:
        """Refuse what is drawn anew in every update and is the same in each: numbers for the batch, noise for a latent."""
        per_item = math.prod(self.batch.latent_shape)
        sizes = {1, self.size, per_item, self.size * per_item}
        same = [count for digest, count in draws.seen.items() if digest in before and count in sizes]
        self.checker.require(
            not same,
            f"draws the same {same[:1]} numbers in updates of different keys: a generator of its own with a constant seed "
            "gives every update the same noise; draw from context.random (.normal, or .generator(key) for torch)",
        )
        before.update(draws.seen)

    def _evaluate(self, context: ObservedContext, through: set[str]) -> Tensor:
        context.lend(tensors_of(context.batch))
        weights = {slot: context.run.slots.state(slot) for slot in self.slots}
        with self.checker.leaves_global_random_alone("draw from context.random"):
            output = self._called(context)
        self._output(output, context)
        self._calls(context)
        with context.run.slots.scope(self.trains):
            output.loss.backward()  # type: ignore[no-untyped-call]
        self._gradients(context, through)
        changed = [name for name, lent, copy in context.lent if not torch.equal(lent, copy)]
        self.checker.require(
            not changed, f"changed {changed[0] if changed else ''} in place, which other terms see too; work on a copy"
        )
        for slot, before in weights.items():
            same = all(torch.equal(value, before[name]) for name, value in context.run.slots.state(slot).items())
            self.checker.require(same, f"changed the weights of slot {slot!r}; only the optimiser may")
        return output.loss.detach()

    def _called(self, context: ObservedContext) -> LossOutput:
        try:
            return self.loss(context)
        except (AttributeError, TypeError) as error:
            self.checker.require(
                self.needs.targets or "NoneType" not in str(error),
                f"stumbles over a None ({error}): batch.target is there only for a term that says Needs(targets=True)",
            )
            raise

    def _output(self, output: LossOutput, context: ObservedContext) -> None:
        require = self.checker.require
        require(isinstance(output, LossOutput), f"must return LossOutput(loss, metrics), not {type(output).__name__}")
        loss: Tensor = output.loss
        require(loss.ndim == 0, f"its loss must be a scalar, the mean over the batch; it has shape {tuple(loss.shape)}")
        require(loss.dtype == torch.float32, f"its loss is {loss.dtype}; compute it in fp32 (.float() before squaring)")
        value = float(loss.detach())
        require(math.isfinite(value), f"its loss is {value} on ordinary numbers ({_where(context)})")
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
            "rollout": bool(context.memo.path),
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
                f"describe says Forwards({name}={said!r}), but an update had {name}={made!r} ({_where(context)}): `plan` "
                "counts on it, and all ranks make the same calls in every step: neither chance, data, step nor rank may "
                "decide about one",
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
            require(
                finite,
                f"its gradient in slot {slot!r} is not finite ({_where(context)}): guard divisions and roots with an eps",
            )
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


def _where(context: ObservedContext) -> str:
    """Say in which update it was, and at which sigma the term called the backbone."""
    sigmas = sorted({round(sigma, 5) for call in context.calls if call.origin == "term" for sigma in call.sigma})
    called = f", called at sigma {', '.join(map(str, sigmas))}" if sigmas else ""
    return f"step {context.step}, rank {context.run.random.rank}{called}"
