"""Run EffectBench, or a part of it: every table from one command, several steps at once, each only once.

    python examples/effectbench/run.py WORK --size laptop             everything
    python examples/effectbench/run.py WORK --size laptop --list      what that is, and what is done
    python examples/effectbench/run.py WORK --size laptop table1      one step, and what it needs
    python examples/effectbench/run.py WORK --size gpu --device cuda --minutes 12      as far as twelve minutes of a GPU go

A step that is done leaves WORK/done/<step>.json (command, seconds, machine); remove it to run the step again.  Steps that
were stopped go on where they were, since the commands behind them do.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from steps import SIZES, Step, all_steps

POLL_SECONDS = 0.5
CONSOLE = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 when every step that was asked for is done."""
    given = _parser().parse_intermixed_args(arguments)  # a step may stand behind the options, as above
    steps = {step.name: step for step in all_steps(SIZES[given.size])}
    unknown = [name for name in given.steps if name not in steps]
    if unknown:
        CONSOLE.print(f"no step {unknown[0]!r}; there are: {', '.join(steps)}")
        return 2
    wanted = with_needs(given.steps or list(steps), steps)
    if given.device == "cuda" and not has_cuda():
        CONSOLE.print("--device cuda: torch sees no CUDA device here")
        return 2
    given.work.mkdir(parents=True, exist_ok=True)
    if given.list:
        for step in wanted:
            CONSOLE.print(f"{'✓' if is_done(given.work, step) else '·'} {step.name}: {shown(step)}", markup=False)
        return 0
    try:
        return run_all(given.work, wanted, given.jobs, given.device, given.minutes)
    except KeyboardInterrupt:
        # The steps got the same Ctrl-C and save by themselves.
        CONSOLE.print("stopped; the same command goes on")
        return 3


def with_needs(names: Sequence[str], steps: dict[str, Step]) -> list[Step]:
    """Return the named steps and all that they need, in the plan's order."""
    chosen: set[str] = set()

    def choose(name: str) -> None:
        if name not in chosen:
            chosen.add(name)
            for need in steps[name].needs:
                choose(need)

    for name in names:
        choose(name)
    return [step for step in steps.values() if step.name in chosen]


def run_all(
    work: Path, steps: Sequence[Step], jobs: int, device: str | None = None, minutes: float | None = None
) -> int:
    """Run what is not done, at most ``jobs`` at once, each after what it needs; a failure stops only what needs it.

    Args:
        device: ``cpu`` hides a GPU from the steps; otherwise each takes one where there is one.
        minutes: after which the running steps are asked to save and stop.

    Returns:
        The exit status: 0 when all is done, 1 after a failure, 3 when the time was up before.
    """
    end = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    left = [step for step in steps if not is_done(work, step)]
    done = {step.name for step in steps} - {step.name for step in left}
    running: dict[str, tuple[Step, subprocess.Popen[bytes], float]] = {}
    failed: set[str] = set()
    while left or running:
        left = _without_hopeless(left, failed)
        for step in list(left):
            alone = any(other.threads > 1 for other, _, _ in running.values()) or (step.threads > 1 and running)
            if len(running) < jobs and set(step.needs) <= done and not alone:
                left.remove(step)
                running[step.name] = (step, _start(work, step, jobs, device), time.monotonic())
                CONSOLE.print(f"[cyan]▸[/] {step.name}")
        if left and not running:
            break
        time.sleep(POLL_SECONDS)
        if time.monotonic() > end:
            return _stop(
                [process for _, process, _ in running.values()], [*left, *(step for step, _, _ in running.values())]
            )
        for name, (step, process, started) in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            seconds = time.monotonic() - started
            if process.returncode == 0:
                done.add(name)
                _mark(work, step, seconds)
                CONSOLE.print(f"[green]✓[/] {name}  [dim]{seconds:.0f} s[/]")
            else:
                failed.add(name)
                CONSOLE.print(f"[red]✗[/] {name}: exit status {process.returncode}, see {work / 'logs' / name}.log")
    return 1 if failed else 0


def _stop(processes: Sequence[subprocess.Popen[bytes]], left: Sequence[Step]) -> int:
    """Ask the steps to save, wait for them, and say what is left."""
    for process in processes:
        process.terminate()  # SIGTERM: what runs in the background may be told to ignore Ctrl-C
    for process in processes:
        process.wait()
    CONSOLE.print(f"the time is up; the same command goes on with {', '.join(step.name for step in left)}")
    return 3


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def _without_hopeless(left: list[Step], failed: set[str]) -> list[Step]:
    for step in left:
        if set(step.needs) & failed:
            failed.add(step.name)
            CONSOLE.print(
                f"[yellow]–[/] {step.name}: not run, since {', '.join(sorted(set(step.needs) & failed))} failed"
            )
    return [step for step in left if step.name not in failed]


def is_done(work: Path, step: Step) -> bool:
    """Whether the step was finished with this very command."""
    marker = work / "done" / f"{step.name}.json"
    return marker.is_file() and json.loads(marker.read_text())["command"] == shown(step)


def shown(step: Step) -> str:
    """Return the step's command as a person would type it."""
    return shlex.join(["python" if word == sys.executable else word for word in step.command])


def _start(work: Path, step: Step, jobs: int, device: str | None) -> subprocess.Popen[bytes]:
    threads = step.threads if step.threads > 1 or jobs > 1 else os.cpu_count() or 1
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    (work / "logs").mkdir(exist_ok=True)
    with (work / "logs" / f"{step.name}.log").open("ab") as log:
        return subprocess.Popen(step.command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _mark(work: Path, step: Step, seconds: float) -> None:
    (work / "done").mkdir(exist_ok=True)
    entry = {"command": shown(step), "seconds": round(seconds, 1), "threads": step.threads}
    (work / "done" / f"{step.name}.json").write_text(json.dumps(entry, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, metavar="WORK", help="folder for the bank, the runs and the evaluations")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="steps to run, with what they need (default: all)")
    parser.add_argument("--size", choices=list(SIZES), default="laptop", help="how large (default: laptop)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="steps at once (default: one a core)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU where there is one")
    parser.add_argument(
        "--minutes", type=float, help="stop the steps after so long; they save, and the same command goes on"
    )
    parser.add_argument("--list", action="store_true", help="say what would be run, and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
