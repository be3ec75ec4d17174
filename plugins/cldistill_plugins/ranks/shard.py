"""The frozen base, shared out over the ranks by FSDP2, block by block; the LoRA layers stay whole on each rank.

A rank holds its part of each block's weights and gathers a block when it is called (`torch.distributed.fsdp.fully_shard`;
Zhao et al. 2023, arXiv 2304.11277).  Weights outside of the blocks stay whole.  As only the frozen weights are shared out,
gradients, optimisers and checkpoints are those of plain data parallelism.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from cldistill.adapters.slots import FROZEN
from cldistill.errors import LaunchError
from cldistill.training.run import Run

DONE = -1
"""Told by the main rank in place of a block's number when its work alone is over."""


def shard(run: Run) -> None:
    """Share the base of a prepared run out over its ranks; from here on all must make the same calls, or be `run.alone`.

    Raises:
        LaunchError: the base names no blocks, or quantised weights that do not divide by the ranks.
    """
    backbone, accelerator = run.base.backbone, run.accelerator
    if not run.base.blocks:
        raise LaunchError(f"base {run.base.name!r} names no blocks by which it could be sharded: launch without FSDP")
    for name in FROZEN:
        run.slots.mount(None, name)  # what is mounted afterwards is whole on each rank
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    trained = {parameter for parameter in backbone.parameters() if parameter.requires_grad}
    blocks = [backbone.get_submodule(name) for name in run.base.blocks]
    try:
        for block in blocks:
            fully_shard(block, mesh=mesh, ignored_params=trained)
    except AssertionError as error:  # of nf4, whose scales come in lots of 16,384 weights
        text = f"the base's weights cannot be cut into {accelerator.num_processes} parts ({error})"
        raise LaunchError(f"{text}: launch on another number of processes, or without FSDP") from error
    # The root has nothing of its own to gather; it lets the blocks' transfers know of one another.
    root = fully_shard(backbone, mesh=mesh, ignored_params=set(backbone.parameters()))
    warnings.filterwarnings("ignore", message=rf"FSDP2-wrapped module \({type(root).__name__}\) returned a view")
    root._get_fsdp_state()._lazy_init()  # now, as a first call for features would run only some of the blocks
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    run.alone = SharedBlocks(run, blocks).alone


class SharedBlocks:
    """The sharded blocks of a base, which the main rank may call by itself while the others hand it their parts."""

    def __init__(self, run: Run, blocks: Sequence[nn.Module]) -> None:
        self.blocks = [cast(FSDPModule, block) for block in blocks]
        self.main, self.device, self.inside = run.is_main, run.accelerator.device, False
        if self.main:
            for index, block in enumerate(blocks):  # before the hook by which FSDP gathers
                block.register_forward_pre_hook(partial(self._called, index), prepend=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let the main rank do inside what it likes, but for backward passes; the others are here until it is done."""
        if not self.main:
            self._help()
        if not self.main or self.inside:
            yield
            return
        self.inside = True
        try:
            yield
        finally:
            self.inside = False
            for block in self.blocks:
                block.reshard()  # one whose call failed is still whole
            self._tell(DONE)

    def _called(self, index: int, module: nn.Module, arguments: object) -> None:
        if self.inside:
            self._tell(index)

    def _tell(self, index: int) -> None:
        distributed.broadcast(torch.tensor(index, device=self.device), 0)

    def _help(self) -> None:
        """Gather each block that the main rank calls, and let go of it."""
        told = torch.tensor(0, device=self.device)
        while True:
            distributed.broadcast(told, 0)
            if (index := int(told)) == DONE:
                return
            self.blocks[index].unshard()
            self.blocks[index].reshard()
