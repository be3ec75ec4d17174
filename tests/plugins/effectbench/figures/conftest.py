"""An opened run without training: random student, critic and teachers on a tiny base, with real pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cldistill.schedule import Schedule
from cldistill.testing import tiny_run
from cldistill.testing.contexts import tiny_dataset
from cldistill_plugins.effectbench.figures.opened import OpenedRun
from cldistill_plugins.effectbench.figures.probe import Probe

torch.set_num_threads(1)


@pytest.fixture
def opened() -> OpenedRun:
    """Two effects, two pairs each, a student of eight steps."""
    run = tiny_run(schedule=Schedule())
    return OpenedRun(replace(run, dataset=tiny_dataset(run.base)), 10, tuple(e.name for e in run.effects), 2)


@pytest.fixture
def probe(opened: OpenedRun) -> Probe:
    """The first pair of the first effect."""
    return Probe(opened, opened.effects[0], 0)
