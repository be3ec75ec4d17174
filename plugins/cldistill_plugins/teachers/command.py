"""`cldistill teachers`: train every teacher of a manifest that comes from pairs, several at once, before a run needs it."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from cldistill.cli.options import ManifestArgument, SetOption
from cldistill_plugins.sharding.api import ShardOption

if TYPE_CHECKING:
    from cldistill_plugins.teachers.workers import WorkerProgress


def teachers(
    manifest: ManifestArgument,
    processes: Annotated[
        int | None,
        typer.Option("--processes", "-p", min=1, help="Processes at once (default: one a GPU, or one a core)."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Also write each one as DIR/<effect>.safetensors.")
    ] = None,
    targets: Annotated[
        bool, typer.Option("--targets", help="Also encode what a run encodes, and sample the targets of its losses.")
    ] = False,
    shard: ShardOption = None,
    overrides: SetOption = None,
) -> None:
    """Train the teachers that come from pairs, several at once; Ctrl-C saves, and the same command goes on."""
    from rich.console import Console
    from rich.markup import escape

    from cldistill.errors import Stopped
    from cldistill.manifest.check import check_manifest
    from cldistill.storage.files import default_cache
    from cldistill_plugins.sharding.api import WHOLE, take_shard
    from cldistill_plugins.teachers.workers import TrainingOrder, tasks_of, train_teachers, visible_devices

    checked, console = check_manifest(manifest, overrides or ()), Console()
    if not checked.trained_teachers and not targets:
        console.print("No effect of this manifest has a teacher that is trained from pairs.")
        return
    share = take_shard(shard)
    # Of a node's cores Slurm and containers may have given us a few.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = visible_devices(checked)
    count = processes or len(devices) or cores
    tasks = tasks_of(checked, share, targets=targets, parts=count)
    if not tasks:
        console.print(f"Nothing is left for share {share}: there are fewer effects than shares.")
        return
    count = min(count, len(tasks))
    if export is not None:
        export.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=export).close()  # hours of training are not for a folder that cannot be written to
    order = TrainingOrder(
        manifest, tuple(overrides or ()), default_cache(), _threads(cores // count), export, targets, devices
    )
    display = _Display(console, len(tasks))
    try:
        with display.progress:
            train_teachers(order, tasks, count, display.tell)
    except Stopped as stopped:
        console.print(str(stopped), markup=False)
        raise typer.Exit(3) from None
    of, what = "" if share == WHOLE else f"share {share}: ", "what a run prepares" if targets else "teachers"
    made = len(tasks) if not targets else f"{len(tasks)} pieces of"
    console.print(
        f"[bold green]✓[/] {of}{made} {what} are in the cache: {escape(str(default_cache()))}", soft_wrap=True
    )


def _threads(share: int) -> int:
    """Threads of one worker: its share of the cores, or fewer where OMP_NUM_THREADS says so."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(share, int(said)) if said.isdecimal() else share)


class _Display:
    """One bar for all teachers, and one for each that is under way."""

    def __init__(self, console: object, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(32, complete_style="cyan"), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), console=console,  # type: ignore[arg-type]
        )  # fmt: skip
        self._all = self.progress.add_task("[bold]teachers[/]", total=total)
        self._tasks: dict[int, int] = {}

    def tell(self, told: WorkerProgress) -> None:
        """Show what a worker says."""
        from rich.markup import escape

        if told.finished or told.error is not None:
            self.progress.advance(self._all)
        if told.finished and not self.progress.console.is_terminal:
            done = self.progress.tasks[0]
            self.progress.console.print(f"{int(done.completed)}/{int(done.total or 0)} {escape(told.effect)}")
        if told.error is not None:
            self.progress.console.print(f"[bold red]✗[/] {escape(told.effect)}: {escape(told.error)}")
        elif told.total:
            if told.worker not in self._tasks:
                self._tasks[told.worker] = int(self.progress.add_task("", total=1))
            task = self._tasks[told.worker]
            shown = f"  {escape(told.effect)}"
            self.progress.update(task, description=shown, completed=told.done, total=told.total)  # type: ignore[arg-type]
