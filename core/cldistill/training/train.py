"""THE loop: resume, step, observe, save; Ctrl-C, SIGTERM and bad numbers end it with everything kept.

A run that was killed and goes on ends byte for byte like the unbroken one, on the CPU.  On CUDA some kernels add in any
order: there ``train.deterministic`` (`torch.use_deterministic_algorithms`) is needed for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from cldistill.adapters.slots import overwrite
from cldistill.errors import CheckpointError, NonFiniteError
from cldistill.progress.signals import StopRequest, graceful_stop
from cldistill.training import checkpoint
from cldistill.training.observers import Observers, warn
from cldistill.training.run import Run
from cldistill.training.step import Optimizers, make_optimizers, run_step


def train(run: Run, stop: StopRequest | None = None) -> int:
    """Train to the end (or to a signal), from the last good checkpoint; return the generator steps done.

    ``stop``: whom to ask for a stop, where the caller has taken the signals himself.
    """
    optimizers = make_optimizers(run)
    observers = Observers(run)
    step = resume(run, optimizers)
    if step == 0:
        warm_start(run, optimizers)
    observers.tell("run_started", start_step=step)
    try:
        with graceful_stop() if stop is None else nullcontext(stop) as asked:
            step = _loop(run, optimizers, observers, step, asked)
    except BaseException as error:
        observers.tell("run_failed", error=error)
        raise
    observers.tell("run_finished", step=step, stopped=step < run.total_steps)
    return step


def _loop(run: Run, optimizers: Optimizers, observers: Observers, step: int, stop: StopRequest) -> int:
    bad_steps = 0
    saved = step
    while step < run.total_steps:
        result = run_step(run, optimizers, step)
        step = result.step
        observers.tell("step_finished", result=result)
        bad_steps = bad_steps + 1 if any(update.skipped for update in result.updates) else 0
        if bad_steps >= run.max_bad_steps:
            raise NonFiniteError(_bad_text(run, bad_steps, saved))
        stopping = any(gather_object([bool(stop)]))  # told to one rank: all must leave after the same step
        # A skipped update leaves weights and optimiser as they were: a stop and the end, which is exported, save after one.
        due = step % run.checkpoint_every == 0 and bad_steps == 0
        if stopping or due or step == run.total_steps:
            saved = save(run, optimizers, observers, step)
        if stopping:
            break
    return step


def _bad_text(run: Run, bad_steps: int, saved: int) -> str:
    kept = (
        f"the checkpoint of step {saved} in {run.output / 'checkpoints'} is the last good one"
        if saved
        else "no checkpoint yet"
    )
    return (
        f"{bad_steps} steps in a row had non-finite losses or gradients (train.max_bad_steps); {kept}. "
        "Lower the learning rate, or look at the losses in metrics.jsonl to see which term went first."
    )


def save(run: Run, optimizers: Optimizers, observers: Observers, step: int) -> int:
    """Write a checkpoint of all slots, modules, optimisers and averages (main process), and return ``step``.

    The live tensors are handed over: copies of all at once would not fit beside the training on a full device.
    """
    with run.alone():
        if run.is_main:
            groups: dict[str, Mapping[str, Tensor]] = {}
            for name, optimizer in optimizers.items():
                groups[name] = optimizer.parameters
                groups[f"optimizer-{name}"] = optimizer.state()
                if optimizer.average is not None:
                    groups[f"ema-{name}"] = optimizer.average
            meta: dict[str, Any] = {
                "name": run.name, "seed": run.random.seed, "manifest": run.manifest_digest,
                "processes": None if run.micro_batches else run.accelerator.num_processes,
                "mixed_precision": run.accelerator.mixed_precision, "plugins": dict(run.plugins),
                "plugin_changes": list(run.plugin_changes),
            }  # fmt: skip
            path = checkpoint.save(run.output / "checkpoints", step, groups, meta, run.keep)
            observers.tell("checkpoint_saved", step=step, path=path)
    run.accelerator.wait_for_everyone()
    return step


def resume(run: Run, optimizers: Optimizers) -> int:
    """Load the newest undamaged checkpoint; return its step, 0 without one."""
    found = checkpoint.latest(run.output / "checkpoints", warn=partial(warn, run))
    if found is None:
        return 0
    ranks, precision = run.accelerator.num_processes, run.accelerator.mixed_precision
    found.must_belong_to(run.manifest_digest, ranks, precision, run.plugins, run.may_change)
    changes = [f"after step {found.step} {line}" for line in found.changes(ranks, run.plugins)]
    run.plugin_changes = (*found.meta.get("plugin_changes", ()), *changes)
    for line in changes:
        warn(run, line)
    for name, optimizer in optimizers.items():
        overwrite(optimizer.parameters, found.load(name), name)
        optimizer.load(found.load(f"optimizer-{name}"))
        if optimizer.average is not None:
            average = found.load(f"ema-{name}")
            optimizer.average = {key: average[key].to(value.device) for key, value in optimizer.average.items()}
    return int(found.step)


def warm_start(run: Run, optimizers: Optimizers) -> None:
    """Let the slots with a ``checkpoint`` of an earlier run begin as it exported them: as their average, if it kept one."""
    for config in run.slot_configs:
        if config.checkpoint is None:
            continue
        found = checkpoint.read(config.checkpoint)
        found.verify()
        average = f"ema-{config.name}"
        run.slots.load(config.name, found.load(average if average in found.groups else config.name))
        optimizers[config.name].warm_start(found.load(f"optimizer-{config.name}"))


def final_weights(run: Run, slot: str) -> tuple[dict[str, Tensor], str]:
    """Return the weights to export and what they are, ``("ema" | "raw")``: the EMA's where the slot keeps one."""
    found = checkpoint.latest(run.output / "checkpoints", warn=partial(warn, run))
    if found is None:
        raise CheckpointError(f"{run.output / 'checkpoints'} holds no checkpoint to export")
    kind = "ema" if run.slot_config(slot).ema is not None else "raw"
    return found.load(f"ema-{slot}" if kind == "ema" else slot), kind
