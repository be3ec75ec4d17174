"""Two gloo ranks share out a base that is compiled or in nf4, and compute what the whole one computes; int8 is refused."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

from cldistill.cli.main import app
from cldistill.errors import LaunchError
from cldistill.testing.contexts import tiny_run
from cldistill.testing.tiny import TINY_RESOLUTION, TINY_VL_RESOLUTION, tiny_pipeline
from cldistill_plugins.ranks import shard as sharding
from cldistill_plugins.ranks.launchers import refuse_sharding

RANKS = 2
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SCRIPT = """
import json
import sys
from types import SimpleNamespace

import torch
from torch import distributed
from torch._dynamo.utils import counters

from cldistill.adapters.slots import AdapterSlots
from cldistill.testing import random_adapter
from cldistill_plugins.qwen_image_edit.base import QwenImageEdit
from cldistill_plugins.qwen_image_edit.settings import QwenImageEditSettings
from cldistill_plugins.ranks.shard import shard

torch.set_num_threads(1)
distributed.init_process_group("gloo")
QwenImageEdit.compiler = "eager"
ranks, settings = distributed.get_world_size(), QwenImageEditSettings(**json.loads(sys.argv[1]))

def computed(shared):
    torch._dynamo.reset()
    base = QwenImageEdit(settings)
    slots, random = AdapterSlots(base.backbone), torch.Generator().manual_seed(0)
    slots.add("student", base.adapter_targets, 4, 4.0, random)
    own = slots.parameters("student")
    slots.load("student", {name: 0.1 * torch.randn(value.shape, generator=random) for name, value in own.items()})
    slots.add_teacher(base.adapter_targets, 4 if base.compiled else None)
    base.enable_gradient_checkpointing(slots.run_pinned)
    if shared:
        accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=ranks)
        shard(SimpleNamespace(base=base, slots=slots, accelerator=accelerator, is_main=distributed.get_rank() == 0))
    x, sigma = torch.randn(1, 16, 64, generator=random), torch.tensor([0.5])
    source = {"latents": torch.randn(1, 16, 64, generator=random), "shapes": torch.tensor([[[4, 4], [4, 4]]])}
    prompt, found = {"embeds": torch.randn(1, 8, 32, generator=random)}, []
    for number in range(3):
        slots.mount(random_adapter(base, number, rank=1 + number))
        with torch.no_grad(), slots.scope("teacher"):
            found.append(base.predict(x, sigma, source, prompt))
        with slots.scope("student"):
            predicted = base.predict(x, sigma, source, prompt)
        found += [predicted.detach(), *torch.autograd.grad(predicted.square().sum(), own.values(), allow_unused=True)]
    held = sum(hasattr(value, "to_local") for value in base.backbone.parameters())
    return [value for value in found if value is not None], held, counters["stats"]["unique_graphs"]

(whole, none, _), (shared, many, graphs) = computed(False), computed(True)
assert none == 0 and many > 0
assert len(whole) == len(shared) and all(torch.equal(one, other) for one, other in zip(whole, shared))
assert not counters["graph_break"], list(counters["graph_break"])
assert bool(graphs) == settings.compiled
distributed.destroy_process_group()
"""


@pytest.mark.slow(20)
@pytest.mark.parametrize("option", [{"quantise": "nf4"}, {"compiled": True}], ids=["nf4", "compiled"])
def test_it_computes_what_the_whole_one_computes(option: dict[str, Any], tmp_path: Path, interpreter: Any) -> None:
    if "quantise" in option:
        pytest.importorskip("torchao")
    # A width of 256: nf4 keeps scales for 16,384 weights together, and each rank must get as many of them.
    folder = tiny_pipeline(tmp_path / "wide", attention_head_dim=128, axes_dims_rope=(32, 48, 48))
    script = tmp_path / "compare.py"
    script.write_text(SCRIPT)
    settings = {"model": str(folder), "resolution": TINY_RESOLUTION, "vl_resolution": TINY_VL_RESOLUTION, **option}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        group = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        interpreter.start(script, json.dumps(settings), environment={**os.environ, **group, "RANK": str(rank)})
        for rank in range(RANKS)
    ]
    for done in [rank.wait() for rank in ranks]:
        assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_weights_that_torchao_does_not_cut_are_refused(kind: str) -> None:
    refuse_sharding(SimpleNamespace(quantise=kind), {})
    refuse_sharding(SimpleNamespace(quantise="nf4", compiled=True), FSDP)
    refuse_sharding(SimpleNamespace(quantise=None, compiled=False), FSDP)
    with pytest.raises(LaunchError, match=rf"options\.quantise: {kind} and FSDP .*Write `nf4`"):
        refuse_sharding(SimpleNamespace(quantise=kind), FSDP)


@pytest.mark.parametrize(
    ("words", "environment"), [(["check", "--no-files"], FSDP), (["plan", "--no-files", "--fsdp", "8"], {})]
)
def test_check_and_plan_say_so_before_anything_is_launched(
    words: list[str], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [words[0], "collectionlora-50", *words[1:], "--set"]
    refused = CliRunner().invoke(app, [*command, "base.options.quantise=int8"]).exception
    assert isinstance(refused, LaunchError) and "Write `nf4`" in str(refused)
    assert CliRunner().invoke(app, [*command, "base.options.quantise=nf4"]).exit_code == 0


def test_lots_that_do_not_divide_by_the_ranks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("quantization_factor.numel() not divisible by 3")

    monkeypatch.setattr(sharding, "init_device_mesh", lambda *_: None)
    monkeypatch.setattr(sharding, "fully_shard", cast(Callable[..., Any], refuse))
    run = tiny_run()
    run.accelerator = cast(Any, SimpleNamespace(device=torch.device("cpu"), num_processes=3))
    with pytest.raises(LaunchError, match=r"cannot be cut into 3 parts .*another number of processes"):
        sharding.shard(run)
