"""Processes side by side, one thread each: on a CPU two of them train faster than one with two threads."""

import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cldistill_plugins.miniature.build.clock import Clock


def run_workers(target: Callable[..., None], arguments: tuple[Any, ...], count: int) -> None:
    """Call `target(rank, *arguments)` in `count` fresh processes and wait for all of them.

    Raises:
        ValueError: one of them failed; its own error is on the terminal.
    """
    context = get_context("spawn")
    processes = [context.Process(target=target, args=(rank, *arguments), daemon=True) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            for other in processes:
                other.terminate()
            raise ValueError(
                f"a worker of `{target.__name__}` stopped with {process.exitcode}; run the command again to go on"
            )


def join_workers(meeting: Path, rank: int, count: int) -> None:
    """Meet the other workers at a file and use one thread; alone there is nobody to meet."""
    torch.set_num_threads(1)
    _leave_with_parent()
    if count > 1:
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=count)


def leave_workers() -> None:
    """Part from the other workers, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def average_gradients(trained: Sequence[nn.Parameter], clock: Clock) -> None:
    """Average gradients over the workers, and the clock with them, so that all agree on the rate and on the end."""
    clock.tick()
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([clock.elapsed])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    clock.elapsed = float(flat[-1])
    for gradient, mean in zip(gradients, torch.split(flat[:-1], [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _leave_with_parent() -> None:
    """End this worker when its parent ends, however that happens: an orphan would train on and overwrite checkpoints."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
