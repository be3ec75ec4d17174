"""Stopping outside the loop, and a real kill -9: what to type is said, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cldistill.testing.environment import plugin_environment
from cldistill.testing.runs import tiny_manifest

PLUGIN = '''
"""Parts that send their process a signal, once each: ``once`` is a file that says it was done."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cldistill.component import Component, Needs, Settings, loss_term, metric, teacher_source
from cldistill.markers import hookimpl
from cldistill.records import MetricValues
from cldistill.testing.tiny_parts import TinyFlow, TinyFlowSettings, describe_tiny_flow, fake_teacher


class Once(Settings):
    once: str
    signal: str = "SIGTERM"
    step: int = 0
    within: str = "loss"


def send(settings):
    if not Path(settings.once).exists():
        Path(settings.once).touch()
        os.kill(os.getpid(), signal.Signals[settings.signal])


class Teacher:
    def __init__(self, settings):
        self.settings = settings

    def adapter(self, request):
        send(self.settings)
        return fake_teacher().adapter(request)


class Flow(TinyFlow):
    def __init__(self, settings):
        super().__init__(TinyFlowSettings())
        self.once = settings
        if settings.within == "checkpoint":
            self.within_a_checkpoint()

    def __call__(self, context):
        if context.step == self.once.step and self.once.within == "loss":
            send(self.once)
        return super().__call__(context)

    def within_a_checkpoint(self):
        from cldistill.training import checkpoint

        write, written = checkpoint._write_group, []

        def half(folder, name, tensors):
            written.append(name)
            if folder.name.startswith(f".step-{self.once.step:06d}") and name == "student":
                send(self.once)
            return write(folder, name, tensors)

        checkpoint._write_group = half


class Measure:
    def __init__(self, settings):
        self.settings = settings

    def __call__(self, request):
        send(self.settings)
        request.advance(0.5)
        return {s: {p: MetricValues({"n": [1.0] * len(v)}) for p, v in pools.items()} for s, pools in request.outputs.items()}


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, Any]]:
    return [loss_term("stopping", "", Once, lambda s: describe_tiny_flow(TinyFlowSettings()), lambda s, c: Flow(s))]


@hookimpl
def register_teacher_sources() -> Sequence[Component[Any, Any]]:
    return [teacher_source("stopping", "", Once, lambda s: Needs(), lambda s, c: Teacher(s))]


@hookimpl
def register_metrics() -> Sequence[Component[Any, Any]]:
    return [metric("stopping", "", Once, lambda s: Needs(), lambda s, c: Measure(s))]
'''


class Program:
    """``cldistill run`` on a manifest of the kit's parts and the plugin's."""

    def __init__(self, root: Path, environment: Mapping[str, str], interpreter: Any) -> None:
        self.root = root
        self.interpreter = interpreter
        self.environment = {**environment, "OMP_NUM_THREADS": "1", "CLDISTILL_CACHE": str(root / "cache")}

    def once(self, name: str, **options: Any) -> dict[str, Any]:
        """A part that sends its signal in the first run alone."""
        return {"use": "stopping", "options": {"once": str(self.root / f"{name}.done"), **options}}

    def write(self, name: str = "manifest", **parts: Any) -> Path:
        path = self.root / f"{name}.yaml"
        data = tiny_manifest(self.root, **parts)
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    def run(self, manifest: Path, output: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "cldistill", "run", str(manifest), "--output", str(self.root / output), *more]
        done: subprocess.CompletedProcess[str] = self.interpreter.run(
            *command, environment=self.environment, folder=self.root, seconds=300
        )
        return done


@pytest.fixture
def program(tmp_path: Path, interpreter: Any) -> Iterator[Program]:
    """The program with the plugin."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/stopping.py").write_text(PLUGIN)
    with plugin_environment({"stopping": "stopping"}, [tmp_path / "src"]) as environment:
        yield Program(tmp_path, environment, interpreter)


def in_preparation(program: Program, number: str) -> dict[str, Any]:
    data = tiny_manifest(program.root)
    return {"effects": [{**effect, "teacher": program.once("now", signal=number)} for effect in data["effects"]]}


def in_evaluation(program: Program, number: str) -> dict[str, Any]:
    images, metrics = str(program.root / "data/invert/source"), [program.once("now", signal=number)]
    return {"evaluate": {"images": images, "pictures": 1, "teacher_steps": 2, "metrics": metrics}}


@pytest.mark.slow(6)
@pytest.mark.parametrize(("where", "number"), [(in_preparation, "SIGINT"), (in_evaluation, "SIGTERM")])
def test_a_signal_outside_the_loop_ends_as_in_it(program: Program, where: Any, number: str) -> None:
    manifest = program.write(**where(program, number))
    option = ("--set", "slots.student.targets=[to_q, to_v]")
    done = program.run(manifest, "out", *option)
    assert done.returncode == 3, done.stderr[-3000:]
    assert f"{number}: leaving as soon as what is under way is saved" in done.stderr
    assert "Stopped while" in done.stdout
    command = f"run {manifest} --output {program.root / 'out'} --set 'slots.student.targets=[to_q, to_v]'"
    assert command in done.stdout  # in one piece, brackets and all
    again = program.run(manifest, "out", *option)
    assert again.returncode == 0, again.stderr[-3000:]
    assert (program.root / "out/collection").is_dir()


@pytest.mark.slow(4)
@pytest.mark.parametrize("within", ["loss", "checkpoint"])
def test_a_run_killed_outright_ends_byte_for_byte_like_an_unbroken_one(program: Program, within: str) -> None:
    step = 5 if within == "loss" else 4
    kill = program.once("killed", signal="SIGKILL", step=step, within=within)
    parts: dict[str, Any] = {
        "losses": [kill, {"use": "tiny-flow", "options": {"slot": "critic"}, "slot": "critic"}],
        "slots": {
            "student": {"rank": 2, "lr": 1e-2, "ema": 0.9},
            "critic": {"rank": 2, "lr": 1e-2, "updates": 2, "from_step": 1, "init": "slot:student", "ema": 0.5},
        },
        "train": {"generator_steps": 8, "batch_size": 2, "checkpoint_every": 2, "keep": 9, "device": "cpu"},
    }
    manifest = program.write(**parts)
    killed = program.run(manifest, "broken")
    assert killed.returncode == -signal.SIGKILL
    kept = sorted(path.name for path in (program.root / "broken/checkpoints").glob("step-*"))
    assert kept == (["step-000002", "step-000004"] if within == "loss" else ["step-000002"])
    assert program.run(manifest, "broken").returncode == 0
    assert program.run(manifest, "unbroken").returncode == 0

    broken, unbroken = (files(program.root / name / "checkpoints") for name in ("broken", "unbroken"))
    assert {"ema-critic", "ema-student", "optimizer-critic", "optimizer-student", "student", "critic"} <= {
        Path(name).stem for name in unbroken
    }
    assert broken == unbroken
    ours, theirs = (
        program.root / name / "collection/pytorch_lora_weights.safetensors" for name in ("broken", "unbroken")
    )
    assert ours.read_bytes() == theirs.read_bytes()


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
