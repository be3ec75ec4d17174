"""Train the teachers of a manifest before its run, several at once: one process a GPU or core each, which share the cache.

Teachers do not depend on one another, and on a CPU two processes of one thread do more than one process of two. Each
takes the next effect from a common queue; every finished teacher lies in the cache, where `cldistill run` finds it, and
a stopped one goes on from its checkpoint.  With ``targets`` everything else that a run prepares of an effect is made, too.
"""

from __future__ import annotations

import multiprocessing
import os
import queue as queues
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cldistill.errors import CldistillError, Stopped
from cldistill.progress.signals import graceful_stop, leave_with_parent
from cldistill.records import GENERAL
from cldistill.storage.untrusted import file_stem
from cldistill_plugins.sharding.api import WHOLE, Shard

if TYPE_CHECKING:
    from cldistill.manifest.checked import CheckedManifest
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
    targets: bool = False
    """True: the effect's pictures and prompts are encoded and its targets sampled, too."""
    devices: tuple[str, ...] = ()
    """GPUs as ``CUDA_VISIBLE_DEVICES`` names them, which the processes take in turn; none: what the manifest says."""


@dataclass(frozen=True)
class Task:
    """A piece of work for one process: an effect, or a share of the general pool."""

    pool: str
    share: Shard = WHOLE

    def __str__(self) -> str:
        return self.pool if self.share == WHOLE else f"{self.pool} {self.share}"


def tasks_of(checked: CheckedManifest, shard: Shard, *, targets: bool, parts: int = 1) -> list[Task]:
    """Return a share of the effects whose teacher is trained; with ``targets``, of all that a run prepares.

    ``parts``: in how many pieces the share of the general pool is cut, for as many processes.
    """
    if not targets:
        return [Task(name) for name in shard.every(checked.trained_teachers)]
    effects = shard.every([effect.name for effect in checked.effects if effect.pairs is not None])
    general = [shard.part(number, parts) for number in range(1, parts + 1)] if checked.items.get(GENERAL) else []
    return [*map(Task, effects), *(Task(GENERAL, part) for part in general)]


def visible_devices(checked: CheckedManifest, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the GPUs that processes can be given, by their names for CUDA; none where the teachers train on the CPU."""
    environment = os.environ if environment is None else environment
    forced = environment.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes")
    if forced or checked.manifest.train.device == "cpu":
        return ()
    import torch

    if not torch.cuda.is_available():  # another kind of accelerator has one process, which finds it by itself
        return ("",) if torch.accelerator.is_available() else ()
    names = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return tuple(names or map(str, range(torch.cuda.device_count())))[: torch.cuda.device_count()]


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
    order: TrainingOrder, tasks: Sequence[Task], processes: int, tell: Callable[[WorkerProgress], None]
) -> None:
    """Do ``tasks`` in ``processes`` processes and pass on what they tell.

    Raises:
        CldistillError: teachers failed, each told with its reason, and the others were trained all the same; or a process
            could not go on (no disk, no memory), told with what was not begun.
        Stopped: by a signal; every worker has saved a checkpoint.
    """
    context = multiprocessing.get_context("spawn")
    work: Any = context.Queue()
    progress: Any = context.Queue()
    for task in tasks:
        work.put(task)
    workers = [
        context.Process(target=_work, args=(index, order, work, progress), daemon=True)
        for index in range(min(processes, len(tasks)))
    ]
    failed: dict[str, str] = {}
    left = [str(task) for task in tasks]
    with graceful_stop() as stop:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) or not progress.empty():
            for item in _drain(progress):
                if item.error is not None:
                    failed[item.effect] = item.error
                if (item.finished or item.error is not None) and item.effect in left:
                    left.remove(item.effect)
                tell(item)
            if stop:
                for worker in workers:
                    if worker.is_alive() and worker.pid is not None:
                        worker.terminate()  # SIGTERM: the worker saves and leaves
    if stop:
        raise Stopped("stopped while training teachers; what is done is saved, and the same command goes on from there")
    if told := failures(failed, [worker.exitcode for worker in workers if worker.exitcode], left):
        raise CldistillError(told)


def failures(failed: Mapping[str, str], statuses: Sequence[int], left: Sequence[str]) -> str:
    """Return what went wrong, or nothing: tasks that ``failed``, the ``statuses`` of crashed processes, what is ``left``."""
    told = [f"teacher of {name}: {error}" if name else error for name, error in failed.items()]
    told += [f"a process that trained teachers ended with status {', '.join(map(str, statuses))}"] if statuses else []
    told += [f"not made: {', '.join(left)}; the same command goes on with them"] if left and told else []
    return "\n".join(told)


def _drain(progress: Any) -> Iterator[WorkerProgress]:
    try:
        yield progress.get(timeout=POLL_SECONDS)
        while True:
            yield progress.get_nowait()
    except queues.Empty:
        return


def _work(index: int, order: TrainingOrder, work: Any, progress: Any) -> None:
    """Do tasks from the common queue until it is empty, or the process that started this one is gone."""
    leave_with_parent(signal.SIGTERM)  # from the first moment: torch is long to import; below, it saves first
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        return
    os.environ.update(variables(order, index))  # before torch looks for GPUs
    import torch

    torch.set_num_threads(order.threads)
    with graceful_stop(say=lambda text: None) as stop:
        name = ""
        try:
            do = worker(
                order,
                lambda effect, done, total: progress.put(WorkerProgress(index, effect, done, total)),
                lambda: bool(stop),
            )
            while not stop:
                try:
                    task = work.get_nowait()
                except queues.Empty:
                    return
                name = str(task)
                try:
                    do(task)
                    progress.put(WorkerProgress(index, name, finished=True))
                except Stopped:
                    return
                except CldistillError as error:  # of this one alone: the next may be sound
                    progress.put(WorkerProgress(index, name, error=str(error)))
        except Stopped:
            return
        except (CldistillError, OSError) as error:
            progress.put(WorkerProgress(index, name, error=str(error)))
        finally:
            if parent is not None and not parent.is_alive():
                progress.cancel_join_thread()  # nobody reads what it still holds


def variables(order: TrainingOrder, index: int) -> dict[str, str]:
    """Return what the environment of a process says: its threads, and the one GPU that it sees, as its first."""
    device = order.devices[index % len(order.devices)] if order.devices else ""
    return {"OMP_NUM_THREADS": str(order.threads)} | ({"CUDA_VISIBLE_DEVICES": device} if device else {})


def worker(
    order: TrainingOrder, tell: Callable[[str, int, int], None], stop: Callable[[], bool]
) -> Callable[[Task], None]:  # fmt: skip
    """Load the base once and return what does one task: it finds or trains a teacher, and makes targets where wanted."""
    from cldistill.assemble import load_base, start
    from cldistill.manifest.check import check_manifest
    from cldistill.manifest.prompts import isolate
    from cldistill.prepare import pool_rows, prepare, teacher_bank

    checked = check_manifest(order.manifest, order.overrides)
    stages = _Telling(tell)
    preparation = load_base(checked, *start(checked, order.cache, order.cache), stages, stop)
    bank, trained = teacher_bank(checked, preparation), set(checked.trained_teachers)
    rows, targeted = {}, []
    if order.targets:
        isolator = checked.prompts.build(preparation.context)
        rows = pool_rows(checked, isolator, isolate(checked, isolator, preparation.base.tokenize))
        targeted = checked.targeted_pools

    def do(task: Task) -> None:
        stages.effect = str(task)
        if task.pool in trained:
            state = bank.state(task.pool)
            if order.export is not None and state is not None:
                export(preparation.base, state, order.export / f"{file_stem(task.pool)}.safetensors")
        if task.pool in rows:
            own = {task.pool: task.share.block(rows[task.pool])}
            prepare(preparation, own, bank, checked.paired, [pool for pool in own if pool in targeted])

    return do


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
