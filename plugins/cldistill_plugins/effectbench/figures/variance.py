"""`python -m cldistill_plugins.effectbench.figures.variance RUN`: what batches of one effect cost in gradient variance.

For each of the student's losses, the gradient of many batches is computed at the weights of a checkpoint: once with one effect
drawn for the whole batch, once with an effect drawn for every item.  The mean of both is the same; the trace of the
covariance is not, and its ratio says how many times the items one would need to make up for it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cldistill.records import STUDENT, Route
from cldistill.training.run import Run, Term
from cldistill.training.term_context import TermContext
from cldistill_plugins.effectbench.figures.opened import STREAM, OpenedRun, open_run

DRAWS, ITEMS, PAIRS = 40, 8, 20


def variance(gradients: Sequence[Tensor]) -> float:
    """Return the trace of the covariance of gradients, each flat: the unbiased estimate."""
    stacked = torch.stack(list(gradients)).double()
    return float((stacked - stacked.mean(dim=0)).square().sum() / (len(gradients) - 1))


def gradient(run: Run, step: int, term: Term, route: Route, draw: int, items: int) -> Tensor:
    """Return one loss's gradient of the student's weights on a drawn batch, flat."""
    random = run.random.child("variance", draw)
    batch = run.dataset.draw(route, random.child("batch"), items)
    context = TermContext.begin(run, step, STUDENT, batch, random).for_term(term.name)
    weights = list(run.slots.parameters(STUDENT).values())
    with run.slots.scope(STUDENT):
        # A last block's text output changes nothing: its weights are in no graph.
        found = torch.autograd.grad(term.loss(context).loss, weights, allow_unused=True)
    return torch.cat([part.reshape(-1) for part in found if part is not None])


def measure(opened: OpenedRun, draws: int = DRAWS, items: int = ITEMS) -> dict[str, dict[str, float]]:
    """Return for each loss of the student on the effect stream both variances and their ratio."""
    run, names = opened.run, opened.effects
    every = Route(STREAM, dict.fromkeys(names, 1.0 / len(names)))
    found = {}
    for term in run.terms:
        if term.slot != STUDENT or not term.active(opened.step - 1, STREAM):
            continue
        # One effect after the other and not a random one: the share of each is then the same as in the mixture's mean.
        alone = [
            gradient(run, opened.step, term, Route(STREAM, {names[i % len(names)]: 1.0}), i, items)
            for i in range(draws)
        ]
        mixed = [gradient(run, opened.step, term, every, i, items) for i in range(draws)]
        one, several = variance(alone), variance(mixed)
        found[term.name] = {"one effect a batch": one, "an effect an item": several, "ratio": one / several}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m cldistill_plugins.effectbench.figures.variance", description=__doc__
    )
    parser.add_argument("run", type=Path, help="what `cldistill run --output` wrote")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--items", type=int, default=ITEMS, help="of a batch")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each effect")
    parser.add_argument("--output", type=Path, help="JSON")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    opened = open_run(given.run, pairs=given.pairs, trained=("critic",))
    found = measure(opened, given.draws, given.items)
    for name, values in found.items():
        print(
            f"{name:<12}{values['one effect a batch']:>12.4g}{values['an effect an item']:>12.4g}{values['ratio']:>8.2f}"
        )
    for note in opened.notes:
        print(f"note: {note}")
    if given.output is not None:
        body = {"draws": given.draws, "items": given.items, "effects": list(opened.effects), "losses": found}
        given.output.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
