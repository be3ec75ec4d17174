"""One generator step: for every slot, route → batch → loss terms → clip → optimiser → EMA.

Each loss term goes backward by itself, so that the peak is that of the largest; those that share a graded call go together.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from cldistill.data.dataset import shares_of
from cldistill.errors import PluginError
from cldistill.random import KeyedRandom
from cldistill.records import STUDENT, RouteRequest, StepResult, UpdateResult
from cldistill.training.optim import Optimizer, average_gradients, learning_rate
from cldistill.training.run import Run, SlotConfig, Term
from cldistill.training.term_context import TermContext

Optimizers = dict[str, Optimizer]
"""Name of a slot, or `module_key` of a term -> its optimiser."""


def module_key(term: str) -> str:
    """Return the name of a term's module among optimisers and in checkpoints: no slot's, for those hold no ``@``."""
    return f"module@{term}"


def make_optimizers(run: Run) -> Optimizers:
    """Create the optimiser of every slot, and of every module that a loss term owns."""
    slots = {config.name: Optimizer(config, run.slots.parameters(config.name)) for config in run.slot_configs}
    modules = {
        module_key(term): Optimizer(owned.optimizer, dict(owned.module.named_parameters()))
        for term, owned in run.modules.items()
    }
    return slots | modules


def run_step(run: Run, optimizers: Optimizers, step: int) -> StepResult:
    """Do the 0-based generator step ``step`` with its critic updates."""
    started, forwards = time.perf_counter(), run.forwards
    results: list[UpdateResult] = []
    previous: list[TermContext] = []
    begin_slots(run, optimizers, step)
    for config in run.slot_configs:
        if step < config.from_step or not any(term.slot == config.name for term in run.terms):
            continue
        for update in range(config.updates):
            parts = range(run.micro_batches or 1)
            contexts = [_context(run, config, step, update, part, previous) for part in parts]
            terms = [t for t in run.terms if t.slot == config.name and t.active(step, contexts[0].batch.route.stream)]
            if not terms:
                continue
            results.append(run_update(run, optimizers, contexts, terms, update))
            if config.name == STUDENT:
                previous = contexts
    return StepResult(
        step=step + 1,
        updates=over_ranks(results, run.accelerator.num_processes),
        seconds=time.perf_counter() - started,
        forwards=run.forwards - forwards,
        peak_memory_mb=peak_memory_mb(str(run.accelerator.device)),
    )


def over_ranks(results: list[UpdateResult], ranks: int) -> tuple[UpdateResult, ...]:
    """Return one step's updates with losses and metrics averaged, and pools joined, over all ranks; each must call it."""
    if ranks == 1:
        return tuple(results)
    return tuple(
        replace(
            same[0], losses=_mean([one.losses for one in same]), metrics=_mean([one.metrics for one in same]),
            pools=tuple(sorted({pool for one in same for pool in one.pools})),
        )
        for same in zip(*gather_object([results]), strict=True)
    )  # fmt: skip


def _mean(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    values = {name: [one[name] for one in ranks if name in one] for found in ranks for name in found}
    return {name: sum(found[1:], found[0]) / len(found) for name, found in values.items()}


def begin_slots(run: Run, optimizers: Optimizers, step: int) -> None:
    """Start the slots whose first step this is, before any update: ``init: slot:<name>`` copies that slot as it stands.

    A critic that began as the bare base would call every difference between student and base a reason to push.
    """
    for config in run.slot_configs:
        if step == config.from_step and isinstance(config.init, str) and config.init.startswith("slot:"):
            run.slots.copy(config.init.removeprefix("slot:"), config.name)
            optimizers[config.name].reset_average()


def _context(
    run: Run, config: SlotConfig, step: int, update: int, part: int, students: Sequence[TermContext]
) -> TermContext:
    """Draw stream, effects and micro-batch ``part`` of one update, or take over the student's (`reuse_sample`)."""
    random = run.random.child(step, config.name, update)
    if run.micro_batches is not None:
        first = (part * run.accelerator.num_processes + run.accelerator.process_index) * run.batch_size
        random = random.of(*range(first, first + run.batch_size))
    previous = students[part] if students else None
    reuse = config.reuse_sample if previous is not None and previous.memo.samples else False
    if previous is not None and (reuse == "trajectory" or (reuse and update == 0)):
        # The student's own step first, then the sampler's other steps in an order drawn for this generator step.
        order = torch.randperm(run.schedule.steps, generator=run.random.child(step, config.name).generator("order"))
        steps = sorted(order.tolist(), key=lambda k: k != previous.memo.k)
        memo = replace(previous.memo, k=steps[update % len(steps)], graded={})
        return TermContext(run, step, config.name, previous.batch, random, random, memo)
    request = RouteRequest(
        step, run.total_steps, config.name, update, [effect.name for effect in run.effects], random.child("route"),
        shared=KeyedRandom(run.random.seed),
    )  # fmt: skip
    batch = run.dataset.draw(run.router.route(request), random.child("batch"), run.batch_size)
    if run.accelerator.num_processes > 1 and batch.size > 1 and len(batch.route.pools) > 1:
        # Under FSDP every call gathers weights from all ranks: each must make as many.
        count = torch.tensor([len(batch.shares)], device=run.accelerator.device)
        most = int(run.accelerator.gather(count).max())
        batch = replace(batch, shares=shares_of([item.pool for item in batch.items], most))
    return TermContext.begin(run, step, config.name, batch, random)


def run_update(
    run: Run, optimizers: Optimizers, contexts: Sequence[TermContext], terms: list[Term], update: int
) -> UpdateResult:
    """Run the terms of one slot's update on each micro-batch; move slot and modules, unless something is not finite."""
    context = contexts[0]
    owners = [term.name for term in terms if term.name in run.modules]
    trained = [optimizers[name] for name in (context.trains, *map(module_key, owners))]
    for optimizer in trained:
        optimizer.zero_grad()
    # Gradients go to what this update trains, and to nothing else: not to a slot that only judges the student's output.
    weights = [weight for optimizer in trained for weight in optimizer.parameters.values()]
    said: list[tuple[dict[str, float], dict[str, float]]] = [({}, {}) for _ in contexts]
    for one, (losses, metrics) in zip(contexts, said, strict=True):
        for group in sharing_groups(terms):
            _backward(one, group, weights, losses, metrics, 1 / len(contexts))
    losses, metrics = _mean([found for found, _ in said]), _mean([found for _, found in said])
    gradients = [gradient for optimizer in trained for gradient in optimizer.gradients()]
    bad = average_gradients(gradients, not all(map(math.isfinite, losses.values())), run.accelerator)
    norms = [float(clip_grad_norm_(list(o.parameters.values()), run.grad_clip)) for o in trained]
    metrics.update({f"{term}/grad_norm": norm for term, norm in zip(owners, norms[1:], strict=True)})
    bad = bad or not all(map(math.isfinite, norms))
    for optimizer in trained:
        if not bad:
            optimizer.apply(learning_rate(optimizer.phases, context.step, run.total_steps))
        optimizer.zero_grad()
    pools = tuple(sorted({item.pool for one in contexts for item in one.batch.items}))
    stream = context.batch.route.stream
    return UpdateResult(context.trains, update, stream, pools, losses, metrics, norms[0], skipped=bad)


def sharing_groups(terms: list[Term]) -> list[list[Term]]:
    """Return the terms that share a graded call as one group, in the place of the first, and every other by itself."""
    together = [term for term in terms if term.shared]
    return [together if term.shared else [term] for term in terms if not term.shared or term is together[0]]


def _backward(
    context: TermContext, group: list[Term], weights: list[nn.Parameter], losses: dict[str, float],
    metrics: dict[str, float], share: float,
) -> None:  # fmt: skip
    """Evaluate one group and free its graph at once: the peak is that of the largest group, not of their sum."""
    weighed = [_evaluate(context.for_term(term.name), term, losses, metrics) * (term.weight * share) for term in group]
    context.memo.graded.clear()
    with context.run.slots.scope(context.trains):  # also of a loss that is not finite: other ranks may need these calls
        torch.autograd.backward(weighed, inputs=weights)


def _evaluate(context: TermContext, term: Term, losses: dict[str, float], metrics: dict[str, float]) -> Tensor:
    """Return one term's loss with its graph, and note what it says for the log."""
    output = term.loss(context)
    losses[term.name] = float(output.loss.detach())
    metrics.update({f"{term.name}/{name}": value for name, value in output.metrics.items()})
    if not output.loss.requires_grad:
        raise PluginError(
            f"loss {term.name!r} returned a loss without a graph in step {context.step}, so it trains nothing: it must "
            f"depend on a call of the slot {term.slot!r}, made outside of torch.no_grad() and not detached"
        )
    return output.loss


def peak_memory_mb(device: str) -> float:
    """Return the peak in MB: of the GPU's allocator on CUDA, else of the process's resident set."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device)) / 1024**2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
