"""Train the teachers of a manifest before its run, several at once: one process each, which share the cache.

Teachers do not depend on one another, and on a CPU two processes of one thread do more than one process of two. Each
takes the next effect from a common queue; every finished teacher lies in the cache, where `cldistill run` finds it, and
a stopped one goes on from its checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import queue as queues
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import CldistillError, Stopped
from cldistill.progress.signals import graceful_stop, leave_with_parent

if TYPE_CHECKING:
    from cldistill.protocols import BaseModel
    from cldistill.weights import AdapterState

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TrainingOrder:
    """The work of all workers: made by the command ``teachers``, sent to each fresh process."""

    manifest: str
    overrides: tuple[str, ...]
    cache: Path
    threads: int
    export: Path | None = None
    """Folder that also gets each teacher as ``<effect>.safetensors``."""


@dataclass(frozen=True)
class WorkerProgress:
    """A worker's report to its parent: ``done`` of ``total`` steps of an effect's teacher, that it is finished, or an error."""

    worker: int
    effect: str
    done: int = 0
    total: int = 0
    finished: bool = False
    error: str | None = None


def train_teachers(
    order: TrainingOrder, names: Sequence[str], processes: int, tell: Callable[[WorkerProgress], None]
) -> None:
    """Train the teachers of ``names`` in ``processes`` processes and pass on what they tell.

    Raises:
        CldistillError: teachers failed; the message has each one's reason, and the others were trained all the same.
        Stopped: by a signal; every worker has saved a checkpoint.
    """
    context = multiprocessing.get_context("spawn")
    work: Any = context.Queue()
    progress: Any = context.Queue()
    for name in names:
        work.put(name)
    workers = [
        context.Process(target=_work, args=(index, order, work, progress), daemon=True)
        for index in range(min(processes, len(names)))
    ]
    failed: dict[str, str] = {}
    with graceful_stop() as stop:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) or not progress.empty():
            for item in _drain(progress):
                if item.error is not None:
                    failed[item.effect] = item.error
                tell(item)
            if stop:
                for worker in workers:
                    if worker.is_alive() and worker.pid is not None:
                        worker.terminate()  # SIGTERM: the worker saves and leaves
    if stop:
        raise Stopped("stopped while training teachers; what is done is saved, and the same command goes on from there")
    crashed = [str(worker.exitcode) for worker in workers if worker.exitcode]
    if crashed and not failed:
        raise CldistillError(f"a process that trained teachers ended with status {', '.join(crashed)}")
    if failed:
        raise CldistillError("\n".join(f"teacher of {name}: {error}" for name, error in failed.items()))


def _drain(progress: Any) -> Iterator[WorkerProgress]:
    try:
        yield progress.get(timeout=POLL_SECONDS)
        while True:
            yield progress.get_nowait()
    except queues.Empty:
        return


def _work(index: int, order: TrainingOrder, work: Any, progress: Any) -> None:
    """Train teachers from the common queue until it is empty."""
    os.environ["OMP_NUM_THREADS"] = str(order.threads)
    import torch

    torch.set_num_threads(order.threads)
    with graceful_stop(say=lambda text: None) as stop:
        leave_with_parent(signal.SIGTERM)  # saving first
        name = ""
        try:
            train = _trainer(
                order,
                lambda effect, done, total: progress.put(WorkerProgress(index, effect, done, total)),
                lambda: bool(stop),
            )
            while not stop:
                try:
                    name = work.get_nowait()
                except queues.Empty:
                    return
                train(name)
                progress.put(WorkerProgress(index, name, finished=True))
        except Stopped:
            return
        except (CldistillError, OSError) as error:
            progress.put(WorkerProgress(index, name, error=str(error)))
        finally:
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():
                progress.cancel_join_thread()  # nobody reads what it still holds


def _trainer(
    order: TrainingOrder, tell: Callable[[str, int, int], None], stop: Callable[[], bool]
) -> Callable[[str], object]:  # fmt: skip
    """Load the base once and return what trains (or fetches) one effect's teacher."""
    from cldistill.assemble import load_base, start
    from cldistill.manifest.check import check_manifest
    from cldistill.prepare import teacher_bank

    checked = check_manifest(order.manifest, order.overrides)
    stages = _Telling(tell)
    preparation = load_base(checked, *start(checked, order.cache, order.cache), stages, stop)
    bank = teacher_bank(checked, preparation)

    def train(name: str) -> object:
        stages.effect = name
        state = bank.state(name)
        if order.export is not None and state is not None:
            export(preparation.base, state, order.export / f"{name}.safetensors")
        return state

    return train


def export(base: BaseModel, state: AdapterState, path: Path) -> None:
    """Write a trained teacher as a LoRA file that any program of its family reads.

    Raises:
        CldistillError: it is no plain LoRA of one rank and alpha, as what `train_pairs` makes always is.
    """
    from cldistill.adapters.save import save_adapter
    from cldistill.weights import LoraWeights

    modules = {name: found for name, found in state.modules.items() if isinstance(found, LoraWeights)}
    kinds = {(found.rank, found.scale) for found in modules.values()}
    if len(modules) < len(state.modules) or len(kinds) != 1:
        raise CldistillError(f"{path.stem}: only a LoRA of one rank and alpha can be exported as a file")
    ((rank, scale),) = kinds
    weights = {f"{name}.lora_A.weight": found.down for name, found in modules.items()}
    weights |= {f"{name}.lora_B.weight": found.up for name, found in modules.items()}
    save_adapter(path, base, weights, rank, scale * rank)


class _Telling:
    """Implements `cldistill.progress.stages.Stages` by telling how far the teacher under way is."""

    def __init__(self, tell: Callable[[str, int, int], None]) -> None:
        self.effect = ""
        self._tell = tell

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        done = 0

        def advance(parts: int) -> None:
            nonlocal done
            done += parts
            if self.effect:
                self._tell(self.effect, done, total)

        yield advance
