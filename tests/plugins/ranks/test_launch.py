"""The documented command that starts two processes on the CPU, word for word; and what is said where one started alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from cldistill.cli import launch as cli_launch
from cldistill.cli.main import app
from cldistill.errors import CheckpointError, LaunchError
from cldistill.manifest.check import check_manifest
from cldistill.manifest.checked import RunRequest
from cldistill.testing.environment import catalogue_with, plugin_environment
from cldistill.testing.runs import tiny_manifest
from cldistill_plugins.ranks import launchers, plugin

PAGE = Path(__file__).parents[3] / "docs/commands.md"
ON_CPU = "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 -m cldistill"
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
        clean = {name: value for name, value in environment.items() if name not in ("MASTER_PORT", *launchers.RANKED)}
        yield manifest, {**clean, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow(17)
def test_the_documented_command_trains_two_ranks_to_the_same_weights(
    two_ranks: tuple[Path, Mapping[str, str]], tmp_path: Path
) -> None:
    manifest, environment = two_ranks
    command = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"{ON_CPU} run"))
    output = tmp_path / "out"
    done = shell(command.replace("collectionlora-50.yaml", f"{manifest} --output {output}"), environment)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(output / f"world-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]
    zero, one = (load_file(output / f"rank-{rank}.safetensors") for rank in (0, 1))
    assert any(value.any() for name, value in zero.items() if "lora_B" in name)
    assert all(torch.equal(zero[name], one[name]) for name in zero)
    assert (output / "collection/pytorch_lora_weights.safetensors").is_file()

    refused = CliRunner().invoke(app, ["run", str(manifest), "--output", str(output)]).exception
    assert isinstance(refused, CheckpointError)
    assert "was trained by 2 processes, and this is a run of 1" in str(refused)
    assert "accelerate launch --num_processes 2" in str(refused)


@pytest.mark.slow(6)
def test_one_process_where_accelerate_was_asked_for_two_is_told_the_command(
    two_ranks: tuple[Path, Mapping[str, str]], tmp_path: Path
) -> None:
    manifest, environment = two_ranks
    command = f"accelerate launch --cpu --num_processes 2 -m cldistill run {manifest} --output {tmp_path / 'out'}"
    done = shell(command, environment)
    assert done.returncode != 0 and not (tmp_path / "out").exists()
    assert f"{ON_CPU.replace('2', 'N')} run {manifest}" in done.stderr
    assert "returned non-zero exit status 2" in done.stderr


def shell(command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command line as a person types it, with our interpreter's programs."""
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"}
    return subprocess.run(
        ["sh", "-c", command], env={**environment, **path}, capture_output=True, text=True, timeout=900, check=False
    )


# --- what the launcher left behind

LEFT_ALONE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "True", "MASTER_PORT": "29500"}
RUN = ["run", "m.yaml", "--set", "slots.student.targets=[to_q]"]


@pytest.mark.parametrize(
    "environment",
    [{}, {"MASTER_PORT": "1"}, {**LEFT_ALONE, "WORLD_SIZE": "2"}, {**LEFT_ALONE, "OMPI_COMM_WORLD_SIZE": "2"}],
)
def test_a_complete_run_is_left_as_it_is(environment: dict[str, str]) -> None:
    launchers.refuse_missing_processes(RUN, environment)


def test_too_few_gpus_for_the_processes_are_no_silent_single_process() -> None:
    with pytest.raises(LaunchError, match=r"too few GPUs(.|\n)*--nproc_per_node N -m cldistill run") as error:
        launchers.refuse_missing_processes(RUN, {**LEFT_ALONE, "ACCELERATE_USE_CPU": "False"})
    assert "\n  accelerate launch --num_processes 1 -m cldistill run m.yaml" in str(error.value)


@pytest.mark.parametrize("kind", ["TP", "DEEPSPEED", "MEGATRON_LM"])
def test_sharding_is_refused_instead_of_ignored(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(yaml.safe_dump(tiny_manifest(tmp_path)))
    request = RunRequest(
        check_manifest(str(manifest), catalogue=catalogue_with()), str(manifest), (), False, None, False, False
    )
    plugin.run_asked(request)
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(LaunchError, match=rf"{kind}.*plain data parallelism"):
        plugin.run_asked(request)


# --- the command that resumes


def test_the_command_that_resumes_starts_as_many_processes() -> None:
    def resumes(**environment: str) -> str:
        return " ".join(cli_launch.command_words(environment))

    on_cpu = "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 -m cldistill"
    assert resumes(WORLD_SIZE="2", ACCELERATE_USE_CPU="True") == on_cpu
    assert resumes(WORLD_SIZE="8") == "torchrun --standalone --nproc_per_node 8 -m cldistill"
    wanted = "accelerate launch --multi_gpu --num_processes 8 --mixed_precision bf16 -m cldistill"
    assert resumes(WORLD_SIZE="8", ACCELERATE_MIXED_PRECISION="bf16") == wanted


def test_one_process_resumes_by_the_program_or_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cldistill").touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "cldistill"), *RUN])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert cli_launch.command_words(environment={}) == ["cldistill"]
    monkeypatch.setenv("PATH", str(tmp_path))  # not activated: the name alone would not be found
    assert cli_launch.command_words(environment={}) == [str(tmp_path / "bin" / "cldistill")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/cldistill", *RUN])
    assert cli_launch.command_words(environment={}) == ["bin/cldistill"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/cldistill/__main__.py", *RUN])
    assert cli_launch.command_words(environment={}) == ["python", "-m", "cldistill"]
