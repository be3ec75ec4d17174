"""The files that start cldistill on several machines: they parse, and cldistill takes the words that they give it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

from cldistill.cli.main import app
from cldistill_plugins.ranks.launchers import refuse_sharding, wants_fsdp
from cldistill_plugins.sharding.api import Shard, take_shard

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "examples" / "launch"
STANDING_IN = r"""
says() { printf '%s\0' "$@"; printf '\n'; }
cldistill() { says "$@"; }
srun() { "$@"; }
accelerate() { while [ "$1" != cldistill ]; do shift; done; "$@"; }
torchrun() { accelerate "$@"; }
sbatch() { for word in "$@"; do case "$word" in "accelerate "*) eval "$word" ;; esac; done; }
"""
"""Shell functions in place of launchers: each passes on the words that follow ``cldistill``."""


def said(script: str, *arguments: str, **environment: str) -> list[list[str]]:
    """Run a shell script with stand-ins for launchers and return the words of each call of cldistill."""
    done = subprocess.run(
        ["bash", "-euc", STANDING_IN + script, "bash", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/home/somebody", **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def taken(words: list[str]) -> dict[str, object]:
    """Return the parameters that a command makes of its words; it is not run."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    context = typer.Context(group)
    name, command, rest = group.resolve_command(context, words)
    assert command is not None
    return dict(command.make_context(name, rest, parent=context).params)


@pytest.mark.slow(3)
def test_accelerate_takes_its_file() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(LAUNCH / "accelerate.yaml"))
    assert config.distributed_type == "MULTI_GPU"
    assert config.num_processes == 8


@pytest.mark.slow(3)
def test_accelerate_takes_its_file_for_fsdp_and_cldistill_what_it_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import prepare_multi_gpu_env

    words = ["--config_file", str(LAUNCH / "accelerate-fsdp.yaml"), "-m", "cldistill", "run", "my-run.yaml"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert arguments.use_fsdp and arguments.num_processes == 8
    monkeypatch.setattr("accelerate.utils.launch.get_free_port", lambda: 29500)
    environment = prepare_multi_gpu_env(arguments)
    assert wants_fsdp(environment)
    refuse_sharding(None, environment)


@pytest.mark.slow
def test_slurm_runs_a_share_in_every_task() -> None:
    script = (LAUNCH / "slurm-teachers.sh").read_text()
    (words,) = said(script, "my-run.yaml")
    assert taken(words) == taken(["teachers", "my-run.yaml", "--targets"])
    first, last = map(int, re.findall(r"^#SBATCH --array=(\d+)-(\d+)$", script, flags=re.MULTILINE)[0])
    count = last - first + 1
    tasks = [
        {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(count)} for task in range(first, last + 1)
    ]
    assert [take_shard(None, task) for task in tasks] == [Shard(number, count) for number in range(1, count + 1)]


@pytest.mark.slow
def test_every_node_of_skypilot_has_its_share() -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert task["envs"]["CLDISTILL_CACHE"].startswith(f"{next(iter(task['volumes']))}/")
    nodes, found = task["num_nodes"], []
    for rank in range(nodes):
        environment = {"SKYPILOT_NODE_RANK": str(rank), "SKYPILOT_NUM_NODES": str(nodes)}
        (words,) = said(task["run"], **task["envs"], **environment)
        parameters = taken(words)
        assert (words[0], parameters["manifest"], parameters["targets"]) == ("teachers", "my-run.yaml", True)
        found.append(take_shard(str(parameters["shard"]), {}))
    assert found == [Shard(number, nodes) for number in range(1, nodes + 1)]


@pytest.mark.parametrize(
    "block",
    re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/several-machines.md").read_text(), re.MULTILINE | re.DOTALL),
)
def test_the_page_gives_commands_that_there_are(block: str) -> None:
    calls = said(block, SKYPILOT_NODE_RANK="0", SKYPILOT_NUM_NODES="4")
    assert calls
    assert all(taken(words)["manifest"] in ("my-run.yaml", "my-eval.yaml") for words in calls)
