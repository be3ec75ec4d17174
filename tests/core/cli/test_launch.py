"""The command that starts two processes on the CPU, word for word; and what is said where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cldistill.cli import launch as cli_launch
from cldistill.cli.launch import Launch
from cldistill.errors import LaunchError
from cldistill.testing.environment import plugin_environment
from cldistill.testing.runs import tiny_manifest

DUMPING = '''
"""A flow-matching loss that leaves each rank's final weights behind when its process ends."""

import atexit
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cldistill.component import BuildContext, Component, Forwards, Needs, Settings, loss_term
from cldistill.markers import hookimpl
from cldistill.records import LossOutput


class Nothing(Settings):
    pass


class Dumping:
    def __init__(self, output):
        self.output = output
        self.run = None

    def __call__(self, context):
        if self.run is None:
            self.run = context.run
            atexit.register(self.dump)
        noise = context.random.normal(context.batch.target.shape, "noise")
        sigma = noise.new_full((noise.shape[0],), 0.5)
        return LossOutput((context.student(noise, sigma) - context.batch.target).square().mean(), {})

    def dump(self):
        from safetensors.torch import save_file

        save_file(self.run.slots.state("student"), self.output / f"rank-{os.environ.get('RANK')}.safetensors")
        (self.output / f"world-{os.environ.get('RANK')}").write_text(str(self.run.accelerator.num_processes))


@hookimpl
def register_loss_terms() -> Sequence[Component[Any, Any]]:
    describe = lambda settings: Needs("student", targets=True, forwards=Forwards(graded=1))
    return [loss_term("dumping", "", Nothing, describe, lambda settings, context: Dumping(context.output))]
'''


@pytest.fixture
def two_ranks(tmp_path: Path) -> Iterator[tuple[Path, Mapping[str, str]]]:
    """A manifest whose ranks leave their weights behind, and the environment that has its plugin."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/dumping.py").write_text(DUMPING)
    manifest = tmp_path / "manifest.yaml"
    train = {"generator_steps": 4, "batch_size": 2, "checkpoint_every": 2, "seed": 1}
    manifest.write_text(yaml.safe_dump(tiny_manifest(tmp_path, losses=[{"use": "dumping"}], train=train)))
    with plugin_environment({"dumping": "dumping"}, [tmp_path / "src"]) as environment:
        clean = {name: value for name, value in environment.items() if name not in ("MASTER_PORT", *cli_launch.RANKED)}
        yield manifest, {**clean, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_promised_command_trains_two_ranks_to_the_same_weights(
    two_ranks: tuple[Path, Mapping[str, str]], tmp_path: Path, interpreter: Any
) -> None:
    manifest, environment = two_ranks
    accelerate = str(Path(sys.executable).parent / "accelerate")
    command = [accelerate, "launch", "--cpu", "--num_processes", "2", "-m", "cldistill", "run", str(manifest)]
    output = tmp_path / "out"
    done = subprocess.run(
        [*command, "--output", str(output)], env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(output / f"world-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]
    zero, one = (load_file(output / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert any(value.any() for name, value in zero.items() if "lora_B" in name)
    assert all(torch.equal(zero[name], one[name]) for name in zero)
    assert (output / "collection/pytorch_lora_weights.safetensors").is_file()

    done = interpreter.run("-m", "cldistill", "run", manifest, "--output", output, environment=environment)
    assert done.returncode == 2
    assert "was trained by 2 processes, and this is a run of 1" in done.stderr
    assert "accelerate launch --num_processes 2" in done.stderr


# --- what the launcher left behind

LEFT_ALONE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}
RUN = ["run", "m.yaml", "--set", "slots.student.targets=[to_q]"]


def seen(monkeypatch: pytest.MonkeyPatch, *lines: list[str]) -> None:
    """Let these be the command lines of parent, grandparent and so on."""
    monkeypatch.setattr(cli_launch, "_command_lines_above", lambda: [list(line) for line in lines])


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that this process would have become."""
    found: list[list[str]] = []
    monkeypatch.setattr(cli_launch, "_become", lambda command, environment: found.append(command))
    return found


def accelerate(*options: str, program: tuple[str, ...] = ("/usr/bin/python3", "/usr/bin/accelerate")) -> list[str]:
    return [*program, "launch", *options, "-m", "cldistill", *RUN]


@pytest.mark.parametrize("option", [["--num_processes", "3"], ["--num-processes=3"], ["--num_processes=3"]])
def test_the_number_of_processes_is_read_from_the_launchers_command_line(
    option: list[str], became: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch, accelerate("--cpu", *option))
    cli_launch.start_missing_processes(RUN, LEFT_ALONE)
    wanted = ["torch.distributed.run", "--standalone", "--nproc_per_node", "3", "-m", "cldistill", *RUN]
    assert became == [[sys.executable, "-m", *wanted]]


def test_or_from_its_configuration(became: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text("use_cpu: true\nnum_processes: 4\n")
    seen(monkeypatch, ["bash"], accelerate("--config_file", str(tmp_path / "cpu.yaml")))
    cli_launch.start_missing_processes(RUN, LEFT_ALONE)
    assert became[0][5] == "4"


@pytest.mark.parametrize(
    "environment",
    [{}, {"MASTER_PORT": "1"}, {**LEFT_ALONE, "WORLD_SIZE": "2"}, {**LEFT_ALONE, "OMPI_COMM_WORLD_SIZE": "2"}],
)
def test_a_complete_run_is_left_as_it_is(environment: dict[str, str], became: list[list[str]]) -> None:
    cli_launch.start_missing_processes(RUN, environment)
    assert became == []


def test_what_cannot_be_known_gives_the_command_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for lines in ([], accelerate("--cpu")), ([], accelerate("--cpu", "--num_processes", "4", "--num_machines", "2")):
        seen(monkeypatch, *lines)
        with pytest.raises(
            LaunchError, match=r"ACCELERATE_USE_CPU=true python -m torch.distributed.run .* -m cldistill run"
        ):
            cli_launch.start_missing_processes(RUN, LEFT_ALONE)


def test_too_few_gpus_for_the_processes_are_no_silent_single_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, accelerate("--num_processes", "2"))
    with pytest.raises(
        LaunchError, match=r"too few GPUs(.|\n)*accelerate launch --cpu --num_processes 2 -m cldistill run"
    ):
        cli_launch.start_missing_processes(RUN, {**LEFT_ALONE, "ACCELERATE_USE_CPU": "False"})


# --- the command that resumes


def test_the_command_that_resumes_starts_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "True"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "cldistill", *RUN]
    seen(monkeypatch, torchrun, accelerate("--cpu", "--num_processes", "2"), ["bash"])
    launcher = cli_launch.command_words(RUN, ranked)
    assert Path(launcher[0]).name == "accelerate"
    assert launcher[1:] == ["launch", "--cpu", "--num_processes", "2", "-m", "cldistill"]
    seen(monkeypatch, torchrun)
    assert cli_launch.command_words(RUN, ranked)[1:] == torchrun[1 : -len(RUN)]
    seen(monkeypatch, ["srun", "something"])
    assert cli_launch.command_words(RUN, ranked) == [
        *["accelerate", "launch", "--cpu", "--num_processes", "2", "-m", "cldistill"]
    ]
    gpu = {"WORLD_SIZE": "8", "ACCELERATE_MIXED_PRECISION": "bf16"}
    wanted = "accelerate launch --multi_gpu --num_processes 8 --mixed_precision bf16 -m cldistill"
    assert " ".join(cli_launch.command_words(RUN, gpu)) == wanted


def test_one_process_resumes_by_the_program_or_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/cldistill", *RUN])
    assert cli_launch.command_words(environment={}) == ["cldistill"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/cldistill/__main__.py", *RUN])
    assert cli_launch.command_words(environment={}) == ["python", "-m", "cldistill"]


def test_a_launcher_is_typed_without_its_interpreter() -> None:
    assert Launch(("/usr/bin/python3", "/nowhere/bin/torchrun", "-m", "x")).again() == [
        "/nowhere/bin/torchrun",
        "-m",
        "x",
    ]
    words = ("python", "-m", "accelerate.commands.launch", "--cpu", "-m", "cldistill")
    assert Launch(words).again() == list(words)
    assert Launch(words).by_accelerate
